/** `server bundle …`: the keys of this trust domain and of the ones it federates with. */
import { spkiOfJwk } from '../spiffe/x509/spki.ts';
import { readFile } from 'node:fs/promises';
import { BatchDeleteFederatedBundleRequest_Mode as Mode, BundleDefinition } from '../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import type { Bundle as WireBundle } from '../proto/gen/spire/api/types/bundle.ts';
import { fail } from '../core/errors.ts';
import { Bundle, jwtAuthority } from '../spiffe/bundle/bundle.ts';
import { Certificate, certificatesFromPem } from '../spiffe/x509/certificate.ts';
import { TrustDomain } from '../spiffe/id.ts';
import { defineCommand, messageOf } from './command.ts';
import { withServer } from './connection.ts';
import { output, text } from './flags.ts';
import { readTrustDomain } from './ids.ts';
import { pem, quoted } from './print.ts';
import { serverFlags } from './sockets.ts';

const { getBundle, getFederatedBundle, listFederatedBundles, batchSetFederatedBundle, batchDeleteFederatedBundle, countBundles } =
  BundleDefinition.methods;

const id = text('SPIFFE ID of the trust domain', '', 'id');
const format = (what: string) => text(`${what}. Either "pem" or "spiffe"`, 'pem', 'format');

export const show = defineCommand({
  summary: 'Prints server CA bundle to stdout',
  flags: { format: format('The format to show the bundle (only pretty output format supports this flag)'), output, ...serverFlags },
  async run({ values }, terminal) {
    const form = checkFormat(values.format);
    return await withServer(values, terminal, async (server) => {
      const bundle = await server.call(BundleDefinition, getBundle, { outputMask: undefined });
      if (values.output === 'json') return await server.print(BundleDefinition, getBundle, bundle);
      terminal.out(bundleText(bundle, form));
      return 0;
    });
  },
});

export const list = defineCommand({
  summary: 'Lists federated bundle data',
  flags: {
    id,
    format: format('The format to list federated bundles (only pretty output format supports this flag)'),
    output,
    ...serverFlags,
  },
  async run({ values }, terminal) {
    const form = checkFormat(values.format);
    return await withServer(values, terminal, async (server) => {
      if (values.id !== '') {
        const bundle = await server.call(BundleDefinition, getFederatedBundle, { trustDomain: values.id, outputMask: undefined });
        if (values.output === 'json') return await server.print(BundleDefinition, getFederatedBundle, bundle);
        terminal.out(bundleText(bundle, form));
        return 0;
      }
      const answer = await server.call(BundleDefinition, listFederatedBundles, { outputMask: undefined, pageSize: 0, pageToken: '' });
      if (values.output === 'json') return await server.print(BundleDefinition, listFederatedBundles, answer);
      terminal.out(answer.bundles.map((bundle) => header(bundle.trustDomain) + bundleText(bundle, form)).join('\n'));
      return 0;
    });
  },
});

export const set = defineCommand({
  summary: 'Creates or updates federated bundle data',
  flags: {
    id,
    path: text('Path to the bundle data; standard input unless given', '', 'path'),
    format: format('The format of the bundle data'),
    output,
    ...serverFlags,
  },
  async run({ values }, terminal) {
    if (values.id === '') throw fail('REQUEST_INVALID', 'id flag is required');
    const form = checkFormat(values.format);
    const bytes = await (values.path === '' ? terminal.input() : readFile(values.path)).catch((error: unknown) => {
      throw fail('REQUEST_INVALID', `unable to load bundle data: ${messageOf(error)}`, { cause: error });
    });
    const bundle = parseBundle(bytes, form, values.id);
    return await withServer(values, terminal, async (server) => {
      const answer = await server
        .call(BundleDefinition, batchSetFederatedBundle, { bundle: [bundle], outputMask: undefined })
        .catch(told('failed to set federated bundle'));
      if (values.output === 'json') return await server.print(BundleDefinition, batchSetFederatedBundle, answer);
      const status = answer.results[0]?.status;
      if (status?.code !== 0) throw fail('REQUEST_INVALID', `failed to set federated bundle: ${status?.message ?? 'no result'}`);
      terminal.out('bundle set.\n');
      return 0;
    });
  },
});

export const count = defineCommand({
  summary: 'Count bundles',
  flags: { output, ...serverFlags },
  run: ({ values }, terminal) =>
    withServer(values, terminal, async (server) => {
      const answer = await server.call(BundleDefinition, countBundles, {});
      if (values.output === 'json') return await server.print(BundleDefinition, countBundles, answer);
      terminal.out(`${answer.count} ${answer.count === 1 ? 'bundle' : 'bundles'}\n`);
      return 0;
    }),
});

const MODES: Readonly<Record<string, Mode>> = {
  '': Mode.RESTRICT,
  restrict: Mode.RESTRICT,
  delete: Mode.DELETE,
  dissociate: Mode.DISSOCIATE,
};

export const remove = defineCommand({
  summary: 'Deletes federated bundle data',
  details: 'Modes: restrict refuses while entries federate with it, dissociate takes it out of them, delete deletes them too.',
  flags: { id, mode: text('Deletion mode: one of restrict, delete, or dissociate', 'restrict', 'mode'), output, ...serverFlags },
  async run({ values }, terminal) {
    if (values.id === '') throw fail('REQUEST_INVALID', 'id is required');
    const mode = Object.hasOwn(MODES, values.mode) ? MODES[values.mode] : undefined;
    if (mode === undefined) throw fail('REQUEST_INVALID', `unsupported mode ${quoted(values.mode)}`);
    return await withServer(values, terminal, async (server) => {
      const answer = await server
        .call(BundleDefinition, batchDeleteFederatedBundle, { trustDomains: [values.id], mode })
        .catch(told('failed to delete federated bundle'));
      if (values.output === 'json') return await server.print(BundleDefinition, batchDeleteFederatedBundle, answer);
      const [result] = answer.results;
      if (result?.status?.code !== 0) {
        throw fail(
          'REQUEST_INVALID',
          `failed to delete federated bundle ${quoted(result?.trustDomain ?? values.id)}: ${result?.status?.message ?? 'no result'}`,
        );
      }
      terminal.out('bundle deleted.\n');
      return 0;
    });
  },
});

function told(what: string): (error: unknown) => never {
  return (error) => {
    throw fail('UNAVAILABLE', `${what}: ${messageOf(error)}`, { cause: error });
  };
}

type Format = 'pem' | 'spiffe';

function checkFormat(typed: string): Format {
  const wanted = typed.toLowerCase();
  if (wanted === 'pem' || wanted === '') return 'pem';
  if (wanted === 'spiffe') return 'spiffe';
  throw fail('REQUEST_INVALID', `invalid format: ${quoted(wanted)}`);
}

function header(trustDomain: string): string {
  const line = '*'.repeat(40);
  return `${line}\n* ${trustDomain}\n${line}\n`;
}

function bundleText(bundle: WireBundle, form: Format): string {
  if (form === 'pem') return pem('CERTIFICATE', ...bundle.x509Authorities.map(({ asn1 }) => asn1));
  const made = new Bundle(TrustDomain.parse(bundle.trustDomain), {
    x509Authorities: bundle.x509Authorities.map(({ asn1 }) => Certificate.parse(asn1)),
    jwtAuthorities: bundle.jwtAuthorities.map(({ keyId, publicKey }) => jwtAuthority(keyId, publicKey)),
    ...(bundle.sequenceNumber > 0 && { sequence: bundle.sequenceNumber }),
    ...(bundle.refreshHint > 0 && { refreshHintSeconds: bundle.refreshHint }),
  });
  return `${made.toJson()}\n`;
}

function parseBundle(bytes: Buffer, form: Format, typedId: string): WireBundle {
  if (form === 'pem') {
    let authorities: readonly Certificate[];
    try {
      authorities = certificatesFromPem(bytes);
    } catch (error) {
      throw fail('REQUEST_INVALID', `unable to parse bundle data: ${messageOf(error)}`, { cause: error });
    }
    if (authorities.length === 0) throw fail('REQUEST_INVALID', 'unable to parse bundle data: no PEM blocks');
    return wireBundle(
      typedId,
      authorities.map(({ raw }) => raw),
      [],
      0,
      0,
    );
  }
  const trustDomain = readTrustDomain(typedId);
  let bundle: Bundle;
  try {
    bundle = Bundle.fromJson(trustDomain, bytes);
  } catch (error) {
    throw fail('REQUEST_INVALID', `unable to parse to spiffe bundle: ${messageOf(error)}`, { cause: error });
  }
  return wireBundle(
    trustDomain.name,
    bundle.x509.authorities.map(({ raw }) => raw),
    [...bundle.jwt.authorities.values()],
    bundle.refreshHintSeconds ?? 0,
    Number(bundle.sequence ?? 0n),
  );
}

function wireBundle(
  trustDomain: string,
  x509: readonly Buffer[],
  jwt: readonly ReturnType<typeof jwtAuthority>[],
  refreshHint: number,
  sequenceNumber: number,
): WireBundle {
  return {
    trustDomain,
    x509Authorities: x509.map((asn1) => ({ asn1, tainted: false })),
    jwtAuthorities: jwt.map(({ keyId, jwk }) => ({ publicKey: spkiOfJwk(jwk), keyId, expiresAt: 0, tainted: false })),
    refreshHint,
    sequenceNumber,
    witAuthorities: [],
  };
}
