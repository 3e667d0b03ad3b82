/** A folder is judged: good ones pass, and each fault is named at its file. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkFolder } from '../../../proxy/helper/check.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';

const td = EphemeralTrustDomain.create('example.org', { intermediate: true });
const other = EphemeralTrustDomain.create('example.org');
const svid = td.rawSvid('/web');
let dir: string;
const put = (name: string, text: string, mode: number) => {
  writeFileSync(join(dir, name), text);
  chmodSync(join(dir, name), mode);
};
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'check-'));
  put('svid.pem', svid.certificatesPem, 0o644);
  put('svid_key.pem', svid.keyPem, 0o600);
  put('svid_bundle.pem', td.bundle.x509.toPem(), 0o644);
});
afterEach(() => rmSync(dir, { recursive: true }));
const faults = async (nowMs = Date.now()) => (await checkFolder(dir, nowMs)).findings.filter(({ severity }) => severity === 'fault');

describe('HP-14 a folder', () => {
  test('that is good has no findings, and its identity is told', async () => {
    const { files, findings } = await checkFolder(dir, Date.now());
    expect(findings).toEqual([]);
    expect(files.find(({ file }) => file === 'svid.pem')?.id).toBe('spiffe://example.org/web');
  });
  const rows: readonly (readonly [what: string, spoil: () => void])[] = [
    ['a key of another certificate', () => put('svid_key.pem', td.rawSvid('/web').keyPem, 0o600)],
    ['a bundle of another authority', () => put('svid_bundle.pem', other.bundle.x509.toPem(), 0o644)],
    ['a key that everybody can read', () => chmodSync(join(dir, 'svid_key.pem'), 0o644)],
    ['a bundle that others can write', () => chmodSync(join(dir, 'svid_bundle.pem'), 0o666)],
    ['half a file', () => put('svid.pem', svid.certificatesPem.slice(0, 300), 0o644)],
    ['a folder that others can write to', () => chmodSync(dir, 0o777)],
  ];
  for (const [what, spoil] of rows)
    test(`with ${what} is not`, async () => {
      expect(await faults()).toEqual([]);
      spoil();
      expect(await faults()).not.toEqual([]);
    });
  test('whose SVID has expired is not', async () => expect(await faults(Date.now() + 400 * 86_400_000)).not.toEqual([]));
});
