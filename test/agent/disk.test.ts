/** What an agent keeps over a restart, and the file that it keeps it in. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AgentDisk } from '../../agent/disk.ts';
import { Certificate } from '../../spiffe/x509/certificate.ts';
import { testCertificate, testRoot } from '../fakes/ca.ts';

let dir: string;
let root: Certificate;
let leaf: Certificate;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'disk-'));
  const issuer = await testRoot();
  root = Certificate.parse(issuer.der);
  leaf = Certificate.parse((await testCertificate({ issuer, uris: ['spiffe://example.org/spire/agent/test/a'] })).der);
});
afterEach(() => rmSync(dir, { recursive: true }));

const path = () => join(dir, 'agent-data.json');
const names = (list: readonly Certificate[]) => list.map(({ sha256 }) => sha256);

test('without a file there is nothing, and opening makes none', async () => {
  expect((await AgentDisk.open(dir)).data).toEqual({ svid: [], bundle: [], reattestable: false, issuers: [] });
  expect(readdirSync(dir)).toEqual([]);
});

test('what was kept is there after a restart; a change of one thing leaves the others', async () => {
  const disk = await AgentDisk.open(dir);
  await disk.update({ svid: [leaf], reattestable: true });
  await disk.update({ bundle: [root] });
  const { data } = await AgentDisk.open(dir);
  expect(names(data.svid)).toEqual([leaf.sha256]);
  expect(names(data.bundle)).toEqual([root.sha256]);
  expect(data.reattestable).toBe(true);
});

test('the file is nobody else’s to read, and nothing else is left beside it', async () => {
  const disk = await AgentDisk.open(dir);
  await disk.update({ svid: [leaf] });
  expect(statSync(path()).mode & 0o777).toBe(0o600);
  expect(readdirSync(dir)).toEqual(['agent-data.json']);
});

test('changes that come at once are all kept, the last one last', async () => {
  const disk = await AgentDisk.open(dir);
  await Promise.all([disk.update({ svid: [leaf] }), disk.update({ bundle: [root] }), disk.update({ svid: [root] })]);
  const { data } = await AgentDisk.open(dir);
  expect(names(data.svid)).toEqual([root.sha256]);
  expect(names(data.bundle)).toEqual([root.sha256]);
});

test('removed is removed, also what was being written', async () => {
  const disk = await AgentDisk.open(dir);
  const writing = disk.update({ svid: [leaf] });
  await disk.remove();
  await writing;
  expect(readdirSync(dir)).toEqual([]);
  expect(disk.data.svid).toEqual([]);
  // nor does anybody bring it back who was under way
  await disk.update({ svid: [leaf], bundle: [root] });
  expect(readdirSync(dir)).toEqual([]);
  // without a file too
  await disk.remove();
});

describe('the file is SPIRE’s', () => {
  const spire = () => ({
    svid: [leaf.raw.toString('base64')],
    bundle: [root.raw.toString('base64')],
    reattestable: true,
    bootstrap_state: 'x',
  });

  test('one that SPIRE wrote is read, whatever more it says', async () => {
    writeFileSync(path(), JSON.stringify(spire()));
    const { data } = await AgentDisk.open(dir);
    expect(names([...data.svid, ...data.bundle])).toEqual([leaf.sha256, root.sha256]);
    expect(data.reattestable).toBe(true);
  });

  test('its lists may be null', async () => {
    writeFileSync(path(), JSON.stringify({ svid: null, bundle: null }));
    expect((await AgentDisk.open(dir)).data).toEqual({ svid: [], bundle: [], reattestable: false, issuers: [] });
  });

  test('ours has its names', async () => {
    await (await AgentDisk.open(dir)).update({ svid: [leaf], bundle: [root], reattestable: true });
    const { bootstrap_state: _, ...known } = spire();
    expect(JSON.parse(readFileSync(path(), 'utf8'))).toEqual(known);
  });

  test('by whom the server is issued stands beside them, and is there after a restart', async () => {
    const disk = await AgentDisk.open(dir);
    await disk.update({ svid: [leaf], issuers: [root] });
    expect((await AgentDisk.open(dir)).data.issuers.map(({ sha256 }) => sha256)).toEqual([root.sha256]);
    await disk.update({ issuers: [] });
    expect((await AgentDisk.open(dir)).data.issuers).toEqual([]);
  });
});

describe('a file that can’t be understood is refused, with its name, and left as it is', () => {
  const bad: Readonly<Record<string, () => string>> = {
    empty: () => '',
    'cut off': () => JSON.stringify({ svid: [leaf.raw.toString('base64')] }).slice(0, -10),
    'not an object': () => '[]',
    'no base64': () => JSON.stringify({ svid: ['*'] }),
    'no certificate': () => JSON.stringify({ bundle: [Buffer.from('x').toString('base64')] }),
    'bytes behind a certificate': () => JSON.stringify({ bundle: [Buffer.concat([root.raw, Buffer.of(0)]).toString('base64')] }),
    'a string in place of a list': () => JSON.stringify({ svid: leaf.raw.toString('base64') }),
    'a number in place of a boolean': () => JSON.stringify({ reattestable: 1 }),
  };
  for (const [name, text] of Object.entries(bad))
    test(name, async () => {
      writeFileSync(path(), text());
      await expect(AgentDisk.open(dir)).rejects.toMatchObject({
        code: 'SETTINGS_INVALID',
        message: expect.stringContaining(path()) as string,
      });
      expect(readFileSync(path(), 'utf8')).toBe(text());
    });
});
