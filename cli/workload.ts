/** `agent api …`: the Workload API, as a workload sees it. */
import { X509Bundle } from '../spiffe/x509/x509-bundle.ts';
import { createPrivateKey } from 'node:crypto';
import { join } from 'node:path';
import { SpiffeWorkloadAPIDefinition as WorkloadApi, type X509SVIDResponse } from '../proto/gen/spiffe/workload/workload.ts';
import { formatDuration } from '../core/duration.ts';
import { fail } from '../core/errors.ts';
import { isStop } from '../core/tasks.ts';
import { type Certificate, splitCertificates } from '../spiffe/x509/certificate.ts';
import { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { verifyX509Svid } from '../spiffe/x509/x509-svid.ts';
import { defineCommand, messageOf } from './command.ts';
import { connect, type Options, statusOf } from './connection.ts';
import { writePrivate, writePublic } from './files.ts';
import { bool, commas, duration, output, text } from './flags.ts';
import { pem, quoted, utcTime } from './print.ts';
import { AGENT, agentFlags, resolveSocket } from './sockets.ts';
import type { Terminal } from './terminal.ts';

const { fetchX509SVID, fetchJWTSVID, fetchJWTBundles, validateJWTSVID } = WorkloadApi.methods;

/** The header that tells a workload from a browser that was tricked (SPIFFE Workload Endpoint §6). */
const METADATA = { 'workload.spiffe.io': 'true' };

const timeout = duration('Time to wait for a response', 5000);
const bare = (message: string) => message;

function withTimeout(ms: number): Options {
  return { metadata: METADATA, ...(ms > 0 && { timeoutMs: ms }) };
}

/** The first answer of a stream. */
async function first<T>(answers: AsyncIterable<T>): Promise<T> {
  for await (const answer of answers) return answer;
  throw fail('UNAVAILABLE', 'rpc error: code = Unavailable desc = the stream ended without an answer');
}

export const fetchX509 = defineCommand({
  summary: 'Fetches X509 SVIDs from the Workload API',
  details: 'With -write DIR: svid.N.pem, svid.N.key (for its owner alone), bundle.N.pem, federated_bundle.N.M.pem for the SVID number N.',
  flags: {
    ...agentFlags,
    timeout,
    silent: bool('Suppress stdout'),
    write: text('Write SVID data to the specified path (optional; only available for pretty output format)', '', 'directory'),
    output,
  },
  sayError: bare,
  run: ({ values }, terminal) =>
    connect(resolveSocket(AGENT, values, terminal.env), terminal, async (agent) => {
      const startedMs = terminal.clock.monotonic();
      const answer = await first(agent.stream(WorkloadApi, fetchX509SVID, {}, withTimeout(values.timeout)));
      const tookMs = terminal.clock.monotonic() - startedMs;
      if (values.output === 'json') return await agent.print(WorkloadApi, fetchX509SVID, answer);
      const svids = parseSvids(answer);
      for (const svid of svids) verify(svid, terminal.clock.now());
      if (!values.silent) terminal.out(svidsText(svids, tookMs));
      if (values.write !== '') await writeSvids(svids, values.write, terminal);
      return 0;
    }),
});

export const watch = defineCommand({
  summary: "Attaches to the Workload API and prints updates as they're received",
  details: 'Ends when it is interrupted. When the agent goes away, it waits for it.',
  flags: agentFlags,
  sayError: bare,
  run: ({ values }, terminal) =>
    connect(resolveSocket(AGENT, values, terminal.env), terminal, async (agent) => {
      let lastMs = terminal.clock.monotonic();
      for (let failures = 0; ; ) {
        try {
          for await (const answer of agent.stream(WorkloadApi, fetchX509SVID, {}, { metadata: METADATA })) {
            failures = 0;
            const nowMs = terminal.clock.monotonic();
            terminal.out(svidsText(parseSvids(answer).map(asWatched), nowMs - lastMs));
            lastMs = nowMs;
          }
        } catch (error) {
          if (isStop(error, terminal.signal)) return 0;
          terminal.err(`${messageOf(error)}\n`);
          // a refused request stays refused
          if (statusOf(error)?.code === 3) return 1;
        }
        try {
          await terminal.clock.sleep(Math.min(1000 * ++failures, 30_000), terminal.signal);
        } catch (error) {
          if (isStop(error, terminal.signal)) return 0;
          throw error;
        }
      }
    }),
});

export const fetchJwt = defineCommand({
  summary: 'Fetches a JWT SVID from the Workload API',
  flags: {
    ...agentFlags,
    audience: commas('comma separated list of audience values'),
    spiffeID: text('SPIFFE ID subject (optional)', '', 'id'),
    timeout,
    output,
    format: { ...output, help: 'deprecated; use -output' },
  },
  sayError: bare,
  async run({ values, given }, terminal) {
    const format = given.has('format') ? values.format : values.output;
    if (values.audience.length === 0) throw fail('REQUEST_INVALID', 'audience must be specified');
    return await connect(resolveSocket(AGENT, values, terminal.env), terminal, async (agent) => {
      const options = withTimeout(values.timeout);
      const bundles = await first(agent.stream(WorkloadApi, fetchJWTBundles, {}, options));
      const svids = await agent.call(WorkloadApi, fetchJWTSVID, { audience: [...values.audience], spiffeId: values.spiffeID }, options);
      if (format === 'json') {
        const { jsonOf, printJsonList } = await import('./json-output.ts');
        return printJsonList(terminal, jsonOf(WorkloadApi, fetchJWTSVID, svids), jsonOf(WorkloadApi, fetchJWTBundles, bundles));
      }
      for (const { spiffeId, svid, hint } of svids.svids) {
        terminal.out(`token(${spiffeId}):\n\t${svid}\n`);
        if (hint !== '') terminal.out(`hint(${spiffeId}):\n\t${hint}\n`);
      }
      for (const [trustDomain, jwks] of byName(bundles.bundles)) terminal.out(`bundle(${trustDomain}):\n\t${jwks.toString('utf8')}\n`);
      return 0;
    });
  },
});

export const validateJwt = defineCommand({
  summary: 'Validates a JWT SVID',
  details: 'Exit code 0 when it is valid, 1 otherwise.',
  flags: { ...agentFlags, audience: text('expected audience value', '', 'audience'), svid: text('JWT SVID', '', 'token'), timeout, output },
  sayError: bare,
  async run({ values }, terminal) {
    if (values.audience === '') throw fail('REQUEST_INVALID', 'audience must be specified');
    if (values.svid === '') throw fail('REQUEST_INVALID', 'svid must be specified');
    return await connect(resolveSocket(AGENT, values, terminal.env), terminal, async (agent) => {
      const answer = await agent
        .call(WorkloadApi, validateJWTSVID, { audience: values.audience, svid: values.svid }, withTimeout(values.timeout))
        .catch((error: unknown) => {
          const status = statusOf(error);
          throw fail(
            'REQUEST_INVALID',
            status?.code === 3 ? `SVID is not valid: ${status.text}` : `unable to validate JWT SVID: ${messageOf(error)}`,
            { cause: error },
          );
        });
      if (values.output === 'json') return await agent.print(WorkloadApi, validateJWTSVID, answer);
      terminal.out(
        `SVID is valid.\nSPIFFE ID : ${answer.spiffeId}\nClaims    : ${JSON.stringify(Object.fromEntries(byName(answer.claims ?? {})))}\n`,
      );
      return 0;
    });
  },
});

function byName<T>(values: Readonly<Record<string, T>>): [name: string, value: T][] {
  return Object.entries(values).sort(([a], [b]) => (a < b ? -1 : 1));
}

/** An SVID as it came, taken apart. */
interface Svid {
  readonly spiffeId: string;
  readonly hint: string;
  readonly chain: readonly [Certificate, ...Certificate[]];
  readonly keyDer: Buffer;
  readonly bundle: readonly Certificate[];
  /** By the trust domain's SPIFFE ID, sorted. */
  readonly federated: readonly (readonly [trustDomain: string, authorities: readonly Certificate[]])[];
}

function parseSvids(answer: X509SVIDResponse): Svid[] {
  if (answer.svids.length === 0) throw fail('REQUEST_INVALID', 'workload response contains no svids');
  const federated = byName(answer.federatedBundles).map(([trustDomain, der]) => {
    const authorities = certificates(der, `failed to parse bundle for federated domain ${quoted(trustDomain)}`);
    if (authorities.length === 0) throw fail('REQUEST_INVALID', `no certificates in bundle for federated domain ${quoted(trustDomain)}`);
    return [trustDomain, authorities] as const;
  });
  return answer.svids.map(({ spiffeId, hint, x509Svid, x509SvidKey, bundle }, index) => {
    const bad = `failed to parse svid entry ${index} for spiffe id ${quoted(spiffeId)}`;
    const [leaf, ...issuers] = certificates(x509Svid, bad);
    if (!leaf) throw fail('REQUEST_INVALID', `${bad}: no certificates found`);
    try {
      createPrivateKey({ key: x509SvidKey, format: 'der', type: 'pkcs8' });
    } catch (error) {
      throw fail('REQUEST_INVALID', `${bad}: failed to parse private key`, { cause: error });
    }
    const authorities = certificates(bundle, `${bad}: failed to parse trust bundle`);
    if (authorities.length === 0) throw fail('REQUEST_INVALID', `${bad}: no certificates in trust bundle`);
    return { spiffeId, hint, chain: [leaf, ...issuers] as const, keyDer: x509SvidKey, bundle: authorities, federated };
  });
}

function certificates(der: Buffer, what: string): readonly Certificate[] {
  try {
    return splitCertificates(der);
  } catch (error) {
    throw fail('REQUEST_INVALID', `${what}: ${messageOf(error)}`, { cause: error });
  }
}

function verify({ spiffeId, chain, bundle }: Svid, nowMs: number): void {
  const id = SpiffeId.parse(spiffeId);
  try {
    verifyX509Svid(chain, new X509Bundle(id.trustDomain, bundle), { nowMs });
  } catch (error) {
    throw fail('SVID_UNTRUSTED', `${quoted(spiffeId)} SVID failed verification against bundle: ${messageOf(error)}`, { cause: error });
  }
}

/** As SPIRE's watch has it: without hints, and trust domains by their names. */
function asWatched(svid: Svid): Svid {
  const federated = svid.federated.map(([id, authorities]) => [TrustDomain.parseNameOrId(id).name, authorities] as const);
  return { ...svid, hint: '', federated };
}

/** SPIRE's text of what came. */
function svidsText(svids: readonly Svid[], tookMs: number): string {
  const validity = (what: string, { notBeforeMs, notAfterMs }: Certificate) =>
    `${what} Valid After:\t${utcTime(notBeforeMs)}\n${what} Valid Until:\t${utcTime(notAfterMs)}\n`;
  const texts = svids.map(({ spiffeId, hint, chain: [leaf, ...issuers], bundle, federated }) =>
    [
      `\nSPIFFE ID:\t\t${spiffeId}\n${hint === '' ? '' : `Hint:\t\t\t${hint}\n`}`,
      validity('SVID', leaf),
      ...issuers.map((issuer, i) => validity(`Intermediate #${i + 1}`, issuer)),
      ...bundle.map((authority, i) => validity(`CA #${i + 1}`, authority)),
      ...federated.flatMap(([trustDomain, authorities]) =>
        authorities.map((authority, i) => validity(`[${trustDomain}] CA #${i + 1}`, authority)),
      ),
    ].join(''),
  );
  return `Received ${svids.length} ${svids.length === 1 ? 'svid' : 'svids'} after ${formatDuration(tookMs)}\n${texts.join('')}\n`;
}

async function writeSvids(svids: readonly Svid[], folder: string, terminal: Terminal): Promise<void> {
  const certificatesPem = (some: readonly Certificate[]) => pem('CERTIFICATE', ...some.map(({ raw }) => raw));
  for (const [i, { chain, keyDer, bundle, federated }] of svids.entries()) {
    const file = (name: string) => join(folder, name);
    terminal.out(`Writing SVID #${i} to file ${file(`svid.${i}.pem`)}.\n`);
    await writePublic(file(`svid.${i}.pem`), certificatesPem(chain));
    terminal.out(`Writing key #${i} to file ${file(`svid.${i}.key`)}.\n`);
    await writePrivate(file(`svid.${i}.key`), pem('PRIVATE KEY', keyDer));
    terminal.out(`Writing bundle #${i} to file ${file(`bundle.${i}.pem`)}.\n`);
    await writePublic(file(`bundle.${i}.pem`), certificatesPem(bundle));
    for (const [j, [trustDomain, authorities]] of federated.entries()) {
      const path = file(`federated_bundle.${i}.${j}.pem`);
      terminal.out(`Writing federated bundle #${j} for trust domain ${trustDomain} to file ${path}.\n`);
      await writePublic(path, certificatesPem(authorities));
    }
  }
}
