/** Story 5: what the PKI team hands over is checked before anything starts, and each fault is named with what to ask for. */
import { chmodSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { createHouse, type House } from './house.ts';

let house: House;
afterEach(() => house.close());

async function start(spoil: (house: House) => void, options: Parameters<typeof createHouse>[0] = {}) {
  house = await createHouse(options);
  spoil(house);
  return house.run('server', 'run', '-config', house.serverConf);
}

/** What was handed over, and the words that the operator must see. */
const refused: [what: string, options: Parameters<typeof createHouse>[0], spoil: (house: House) => void, words: RegExp][] = [
  ['a pathlen:0 intermediate without sign_directly', { intermediate: { pathlen: 0 } }, () => {}, /pathlen.*sign_directly/is],
  [
    'a key of another certificate',
    {},
    ({ pki }) => copyFileSync(pki.issueIntermediate('other').key, pki.intermediateKey),
    /key.*(match|belong)/i,
  ],
  ['no CA bit', {}, ({ pki }) => copyFileSync(pki.machine('leaf').certificate, pki.intermediate), /key|CA/i],
  ['a root that did not sign it', {}, ({ pki }) => copyFileSync(pki.machineCa, pki.root), /bundle|root|chain/i],
  ['a key file that others can read', {}, ({ pki }) => chmodSync(pki.intermediateKey, 0o644), /insecure_key_file_mode/],
  ['garbage instead of a certificate', {}, ({ pki }) => writeFileSync(pki.intermediate, 'not a certificate'), /certificate/i],
  [
    'name constraints that forbid us',
    { intermediate: { extensions: ['nameConstraints=critical,permitted;URI:other.example'] } },
    () => {},
    /name constraint/i,
  ],
];

for (const [what, options, spoil, words] of refused) {
  test(`${what}: the server refuses to start and says so`, async () => {
    const { code, stdout, stderr } = await start(spoil, options);
    expect(code).toBe(1);
    expect(stdout + stderr).toMatch(words);
  });
}

for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-4096'] as const) {
  for (const signDirectly of [false, true]) {
    test(`an ${keyType} intermediate that is in order ${signDirectly ? 'signs directly' : 'gets a CA below it'}`, async () => {
      house = await createHouse({ intermediate: { keyType }, signDirectly });
      await house.startServer();
      expect(await house.ok('server', 'bundle', 'show')).toContain(readFileSync(house.pki.root, 'utf8').split('\n')[1] ?? '?');
      expect(await house.ok('server', 'x509', 'mint', '-spiffeID', 'spiffe://example.org/x')).toContain('BEGIN CERTIFICATE');
    });
  }
}
