/** `server x509 mint` and `server jwt mint`: SVIDs by hand. */
import { join } from 'node:path';
import { BundleDefinition } from '../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import { SVIDDefinition } from '../proto/gen/spire/api/server/svid/v1/svid.ts';
import { fail } from '../core/errors.ts';
import { buildCsr } from '../core/x509/csr.ts';
import { generateEcKey, pkcs8Der } from '../core/x509/key.ts';
import { defineCommand, messageOf } from './command.ts';
import { withServer } from './connection.ts';
import { writePrivate, writePublic } from './files.ts';
import { duration, list, output, text } from './flags.ts';
import { readId, toSeconds } from './ids.ts';
import { pem, printStruct } from './print.ts';
import { serverFlags } from './sockets.ts';

const { mintX509SVID, mintJWTSVID } = SVIDDefinition.methods;

export const x509 = defineCommand({
  summary: 'Mints an X509-SVID',
  details: 'The key is made here and never leaves this machine. With -write DIR: svid.pem, key.pem (for its owner alone) and bundle.pem.',
  flags: {
    spiffeID: text('SPIFFE ID of the X509-SVID', '', 'id'),
    ttl: duration('TTL of the X509-SVID; 0s: the default of the server', 0),
    dns: list('DNS name that will be included in SVID', 'name'),
    write: text('Directory to write output to instead of stdout', '', 'directory'),
    output,
    ...serverFlags,
  },
  async run({ values }, terminal) {
    if (values.spiffeID === '') throw fail('REQUEST_INVALID', 'spiffeID must be specified');
    const id = readId(values.spiffeID);
    const ttl = toSeconds(values.ttl, 'TTL');
    const key = generateEcKey();
    const csr = buildCsr({ uri: id.toString(), dns: values.dns, key });

    return await withServer(values, terminal, async (server) => {
      const { svid } = await server.call(SVIDDefinition, mintX509SVID, { csr, ttl }).catch(told('unable to mint SVID'));
      if (!svid || svid.certChain.length === 0) throw fail('INTERNAL', 'server response missing SVID chain');
      const bundle = await server
        .call(BundleDefinition, BundleDefinition.methods.getBundle, { outputMask: undefined })
        .catch(told('unable to get bundle'));
      if (bundle.x509Authorities.length === 0) throw fail('INTERNAL', 'server response missing X509 Authorities');
      const roots = bundle.x509Authorities.map(({ asn1 }) => asn1);
      const keyDer = pkcs8Der(key);

      if (svid.expiresAt * 1000 - terminal.clock.now() < values.ttl) {
        terminal.err(`X509-SVID lifetime was capped shorter than specified ttl; expires "${rfc3339(svid.expiresAt)}"\n`);
      }
      const [svidPem, keyPem, rootsPem] = [pem('CERTIFICATE', ...svid.certChain), pem('PRIVATE KEY', keyDer), pem('CERTIFICATE', ...roots)];
      if (values.write !== '') {
        const file = (name: string) => join(values.write, name);
        await writePublic(file('svid.pem'), svidPem).catch(told('unable to write SVID'));
        terminal.out(`X509-SVID written to ${file('svid.pem')}\n`);
        await writePrivate(file('key.pem'), keyPem).catch(told('unable to write key'));
        terminal.out(`Private key written to ${file('key.pem')}\n`);
        await writePublic(file('bundle.pem'), rootsPem).catch(told('unable to write bundle'));
        terminal.out(`Root CAs written to ${file('bundle.pem')}\n`);
        return 0;
      }
      if (values.output === 'json') {
        const base64 = (bytes: Buffer) => bytes.toString('base64');
        return printStruct(terminal, { x509_svid: svid.certChain.map(base64), private_key: base64(keyDer), root_cas: roots.map(base64) });
      }
      terminal.out(`X509-SVID:\n${svidPem}\nPrivate key:\n${keyPem}\nRoot CAs:\n${rootsPem}\n`);
      return 0;
    });
  },
});

export const jwt = defineCommand({
  summary: 'Mints a JWT-SVID',
  flags: {
    spiffeID: text('SPIFFE ID of the JWT-SVID', '', 'id'),
    audience: list('Audience claim that will be included in the SVID', 'audience'),
    ttl: duration('TTL of the JWT-SVID; 0s: the default of the server', 0),
    write: text('File to write token to instead of stdout; for its owner alone', '', 'file'),
    output,
    ...serverFlags,
  },
  async run({ values }, terminal) {
    if (values.spiffeID === '') throw fail('REQUEST_INVALID', 'spiffeID must be specified');
    if (values.audience.length === 0) throw fail('REQUEST_INVALID', 'at least one audience must be specified');
    const { trustDomain, path } = readId(values.spiffeID);
    const request = { id: { trustDomain: trustDomain.name, path }, audience: [...values.audience], ttl: toSeconds(values.ttl, 'TTL') };

    return await withServer(values, terminal, async (server) => {
      const answer = await server.call(SVIDDefinition, mintJWTSVID, request).catch(told('unable to mint SVID'));
      const token = answer.svid?.token ?? '';
      if (token === '') throw fail('INTERNAL', 'server response missing token');
      const expiresAt = expiryOf(token);
      if (expiresAt === undefined) terminal.err('Unable to determine JWT-SVID lifetime: no expiry claim\n');
      else if (expiresAt * 1000 - terminal.clock.now() < values.ttl) {
        terminal.err(`JWT-SVID lifetime was capped shorter than specified ttl; expires "${rfc3339(expiresAt)}"\n`);
      }
      if (values.write !== '') {
        await writePrivate(values.write, token).catch(told('unable to write token'));
        terminal.out(`JWT-SVID written to ${values.write}\n`);
        return 0;
      }
      if (values.output === 'json') return await server.print(SVIDDefinition, mintJWTSVID, answer);
      terminal.out(`${token}\n`);
      return 0;
    });
  },
});

function told(what: string): (error: unknown) => never {
  return (error) => {
    throw fail('UNAVAILABLE', `${what}: ${messageOf(error)}`, { cause: error });
  };
}

function rfc3339(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}Z`;
}

/** The token's own word, only to tell the user: the server that made it is the one we asked. */
function expiryOf(token: string): number | undefined {
  try {
    const claims: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8'));
    const exp = typeof claims === 'object' && claims !== null && 'exp' in claims ? claims.exp : undefined;
    return typeof exp === 'number' && Number.isFinite(exp) ? exp : undefined;
  } catch {
    return undefined;
  }
}
