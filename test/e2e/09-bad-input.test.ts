/** Story 9: whatever malformed thing comes to a running server, it is refused with its name, and nothing is written; its good twin passes. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createHouse, type House } from './house.ts';

let house: House;
beforeAll(async () => {
  house = await createHouse({ logLevel: 'INFO' });
  await house.startServer();
});
afterAll(() => house?.close());

/** Everything that could have been written. */
async function written(): Promise<string> {
  const parts = await Promise.all([
    house.ok('server', 'entry', 'show'),
    house.ok('server', 'bundle', 'list'),
    house.ok('server', 'bundle', 'show'),
    house.ok('server', 'agent', 'list'),
  ]);
  return parts.join('\n');
}

const PARENT = ['-parentID', 'spiffe://example.org/node'] as const;
const create = (...more: string[]) => ['entry', 'create', ...more];
const good = (name: string) => create(...PARENT, '-spiffeID', `spiffe://example.org/${name}`, '-selector', `unix:uid:${name}`);
const file = (name: string, text: string): string => {
  const path = join(house.dir, name);
  writeFileSync(path, text);
  return path;
};

describe('by the command line', () => {
  const rows: readonly [what: string, bad: () => string[], words: RegExp, twin: () => string[]][] = [
    [
      'a SPIFFE ID with a dot segment',
      () => create(...PARENT, '-spiffeID', 'spiffe://example.org/a/../b', '-selector', 'unix:uid:1'),
      /dot segment|cannot be/,
      () => good('a'),
    ],
    [
      'a SPIFFE ID of another trust domain',
      () => create(...PARENT, '-spiffeID', 'spiffe://other.org/a', '-selector', 'unix:uid:1'),
      /not a member of trust domain/,
      () => good('b'),
    ],
    [
      'a reserved SPIFFE ID',
      () => create(...PARENT, '-spiffeID', 'spiffe://example.org/spire/server', '-selector', 'unix:uid:1'),
      /reserved namespace/,
      () => good('c'),
    ],
    [
      'a trust domain in capitals',
      () => create(...PARENT, '-spiffeID', 'spiffe://Example.org/a', '-selector', 'unix:uid:1'),
      /trust domain/,
      () => good('d'),
    ],
    [
      'a selector without a value',
      () => create(...PARENT, '-spiffeID', 'spiffe://example.org/x', '-selector', 'unix'),
      /selector/,
      () => good('e'),
    ],
    [
      'a negative lifetime',
      () => create(...PARENT, '-spiffeID', 'spiffe://example.org/x', '-selector', 'unix:uid:1', '-x509SVIDTTL', '-1'),
      /TTL|ttl/i,
      () => [...good('f'), '-x509SVIDTTL', '60'],
    ],
    [
      'a DNS name with a space',
      () => create(...PARENT, '-spiffeID', 'spiffe://example.org/x', '-selector', 'unix:uid:1', '-dns', 'a b'),
      /DNS/i,
      () => [...good('g'), '-dns', 'a.example'],
    ],
    [
      'federation with an unknown trust domain',
      () => create(...PARENT, '-spiffeID', 'spiffe://example.org/x', '-selector', 'unix:uid:1', '-federatesWith', 'spiffe://nobody.org'),
      /unable to find federated bundle/,
      () => good('h'),
    ],
    [
      'entries that are no JSON',
      () => create('-data', file('bad.json', '{ "entries": [')),
      /JSON|Unexpected/,
      () =>
        create(
          '-data',
          file(
            'good.json',
            '{"entries":[{"parent_id":"spiffe://example.org/node","spiffe_id":"spiffe://example.org/i","selectors":[{"type":"unix","value":"uid:i"}]}]}',
          ),
        ),
    ],
    [
      'a bundle that is no PEM',
      () => ['bundle', 'set', '-id', 'spiffe://other.org', '-path', file('bad.pem', 'not a certificate')],
      /bundle|PEM|certificate/i,
      () => ['bundle', 'set', '-id', 'spiffe://other.org', '-path', house.pki.root],
    ],
    [
      'a bundle of JSON that is none',
      () => ['bundle', 'set', '-id', 'spiffe://other.org', '-format', 'spiffe', '-path', file('bad.jwks', '{"keys": 1}')],
      /keys|bundle/i,
      () => ['bundle', 'show', '-format', 'spiffe'],
    ],
    [
      'a bundle for our own trust domain',
      () => ['bundle', 'set', '-id', 'spiffe://example.org', '-path', house.pki.root],
      /own trust domain/,
      () => ['bundle', 'count'],
    ],
    [
      'an SVID for nobody',
      () => ['x509', 'mint', '-spiffeID', 'spiffe://example.org'],
      /path is empty/,
      () => ['x509', 'mint', '-spiffeID', 'spiffe://example.org/m'],
    ],
    [
      'a JWT-SVID for no audience',
      () => ['jwt', 'mint', '-spiffeID', 'spiffe://example.org/m'],
      /audience/,
      () => ['jwt', 'mint', '-spiffeID', 'spiffe://example.org/m', '-audience', 'a'],
    ],
    [
      'a join token that no SPIFFE ID could hold',
      () => ['token', 'generate', '-spiffeID', 'spiffe://example.org/spire/x'],
      /reserved namespace/,
      () => ['token', 'generate', '-spiffeID', 'spiffe://example.org/host'],
    ],
  ];
  for (const [what, bad, words, twin] of rows) {
    test(`${what} is refused by name, and nothing is written; its twin passes`, async () => {
      const before = await written();
      const refused = await house.run('server', ...bad());
      expect(refused.code, refused.stdout).toBe(1);
      expect(refused.stderr + refused.stdout).toMatch(words);
      expect(await written()).toBe(before);
      await house.ok('server', ...twin());
    });
  }
});

describe('on the wire', () => {
  const call = (method: string, bytes: Buffer) =>
    new Promise<{ code: number; details: string; answer: Buffer }>((resolve) => {
      const client = new grpc.Client(`unix:${house.socketPath}`, grpc.credentials.createInsecure());
      client.makeUnaryRequest(
        method,
        (raw: Buffer) => raw,
        (raw) => raw,
        bytes,
        (error, answer) => {
          client.close();
          resolve({ code: error?.code ?? 0, details: error?.details ?? '', answer: answer ?? Buffer.alloc(0) });
        },
      );
    });
  /** Field 1, bytes. */
  const field1 = (bytes: Buffer) =>
    Buffer.concat([
      Buffer.from([0x0a, ...(bytes.length < 128 ? [bytes.length] : [(bytes.length & 0x7f) | 0x80, bytes.length >> 7])]),
      bytes,
    ]);
  const MINT = '/spire.api.server.svid.v1.SVID/MintX509SVID';
  /** By openssl: a hand that is not ours. */
  const csr = (san = 'URI:spiffe://example.org/wire') => {
    const key = join(house.dir, 'csr.key');
    execFileSync('openssl', ['ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', key]);
    const args = ['req', '-new', '-key', key, '-subj', '/CN=x', '-addext', `subjectAltName=${san}`, '-outform', 'DER'];
    return execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'] });
  };

  test('bytes that are no message', async () => {
    for (const bytes of [Buffer.from([0xff]), Buffer.from([0x0a, 0x7f, 1]), Buffer.from([0x0b]), Buffer.from([0x00, 0x00])]) {
      expect((await call(MINT, bytes)).code, bytes.toString('hex')).not.toBe(0);
    }
    expect((await call(MINT, field1(csr()))).code).toBe(0);
  });

  test('a CSR with a bad signature, trailing bytes, another trust domain, or no SPIFFE ID', async () => {
    const whole = csr();
    const forged = Buffer.from(whole);
    forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1;
    const before = await written();
    for (const [bad, words] of [
      [forged, /CSR/],
      [Buffer.concat([whole, Buffer.from([0])]), /CSR/],
      [csr('URI:spiffe://other.org/wire'), /CSR|not a member/],
      [csr('DNS:wire.example'), /CSR URI SAN is required/],
      [whole.subarray(0, 40), /CSR/],
      [Buffer.alloc(0), /missing CSR/],
    ] as const) {
      const refused = await call(MINT, bad.length > 0 ? field1(bad) : bad);
      expect(refused.code).toBe(grpc.status.INVALID_ARGUMENT);
      expect(refused.details).toMatch(words);
    }
    expect(await written()).toBe(before);
    expect((await call(MINT, field1(whole))).code).toBe(0);
  });
});

test('settings: every fault at once, each with its file and line; the same file without them is valid', async () => {
  const text = readFileSync(house.serverConf, 'utf8');
  expect((await house.run('server', 'validate', '-config', house.serverConf)).code).toBe(0);
  const spoilt = file(
    'spoilt.conf',
    text.replace('log_level = "INFO"', 'log_levl = "INFO"\n  ca_ttl = "soon"').replace('KeyManager', 'KeyManger'),
  );
  const { code, stdout, stderr } = await house.run('server', 'validate', '-config', spoilt);
  expect(code).toBe(1);
  for (const words of [/spoilt\.conf:\d+.*log_levl.*log_level/, /spoilt\.conf:\d+.*ca_ttl/, /KeyManger.*KeyManager/])
    expect(stdout + stderr).toMatch(words);
});
