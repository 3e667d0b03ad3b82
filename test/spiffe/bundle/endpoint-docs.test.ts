/** docs/federation-client.md: its examples run, stand there word for word; its figures and reasons are those of the sources. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { fetchBundle } from '../../../spiffe/bundle/endpoint-client.ts';
import { BundleEndpointSource } from '../../../spiffe/bundle/endpoint-source.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { FakeBundleEndpoint } from '../../../spiffe/testing/bundle-endpoint.ts';
import { bundleOf, ours, root, setOf, site, svid, webRoot } from './endpoint-rig.ts';
import { partners } from './examples/follow.ts';
import { keep, kept } from './examples/keep.ts';
import { endpoint } from './examples/serve.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
const examples = join(import.meta.dirname, 'examples');
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');
const page = read('docs/federation-client.md');
const shop = TrustDomain.parse('shop.example');
const bank = TrustDomain.parse('bank.example');

test('follow.ts has the bundles of both', async () => {
  const [publicRoot, bankRoot] = [await webRoot(), await root(bank)];
  await using web = await FakeBundleEndpoint.start({ web: await site(publicRoot), bundle: bundleOf(shop, [], 1) });
  const id = 'spiffe://bank.example/spire/server';
  const bundle = bundleOf(bank, [bankRoot], 2);
  await using spiffe = await FakeBundleEndpoint.start({ svid: await svid(bankRoot, id), bundle });
  await using source = await partners(web.url, spiffe.url, bundle.toJson(), publicRoot.pem);
  expect([...source.bundles].map(({ sequence }) => sequence)).toEqual([2n, 1n]);
});

test('keep.ts keeps what has come for the next start', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'keep-'));
  const publicRoot = await webRoot();
  const address = { trustDomain: shop, profile: { type: 'https_web', ca: publicRoot.pem } } as const;
  const web = await FakeBundleEndpoint.start({ web: await site(publicRoot), bundle: bundleOf(shop, [], 7) });
  const { url } = web;
  expect(await kept(folder, 'shop.example')).toBe(undefined);
  const source = new BundleEndpointSource({ endpoints: [{ ...address, url }] });
  const keeping = keep(source, folder);
  await expect.poll(() => readdirSync(folder)).toEqual(['shop.example.json']);
  await source.close();
  await keeping;
  await web.close();
  const initial = await kept(folder, 'shop.example');
  await using next = new BundleEndpointSource({ endpoints: [{ ...address, url, initial }] });
  expect(next.get(shop)?.sequence).toBe(7n);
  rmSync(folder, { recursive: true });
});

test('serve.ts serves it to anybody', async () => {
  const publicRoot = await webRoot();
  const server = endpoint(await site(publicRoot), setOf(bundleOf(ours, [], 9)));
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const url = `https://localhost:${(server.address() as AddressInfo).port}/`;
  const fetched = await fetchBundle({ trustDomain: ours, url, profile: { type: 'https_web', ca: publicRoot.pem } });
  expect(fetched.sequence).toBe(9n);
  server.close();
});

/** As a user would write it: the package, not our files. */
function published(source: string): string {
  return source
    .replace(/^\/\*\*.*\*\/\n/, '')
    .replaceAll(/'(?:\.\.\/){4}spiffe\/bundle\/endpoint-[\w-]+\.ts'/g, "'@warifu/spiffe/federation'")
    .replaceAll(/'(?:\.\.\/){4}spiffe\/[\w/-]+\.ts'/g, "'@warifu/spiffe'")
    .trim();
}

test('the page has the examples, and no other code', () => {
  const blocks = [...page.matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, block = '']) => block.trim());
  const sources = readdirSync(examples).map((file) => published(readFileSync(join(examples, file), 'utf8')));
  expect(blocks.sort()).toEqual(sources.sort());
});

test('the page has every reason of the family, and no others', () => {
  const real = [...read('spiffe/errors.ts').matchAll(/\| '(FED_\w+)'/g)].map(([, reason = '']) => reason);
  expect([...page.matchAll(/^\| `(FED_\w+)` \|/gm)].map(([, reason = '']) => reason).sort()).toEqual(real.sort());
});

for (const [file, constant, told] of [
  ['endpoint-source.ts', 'REFRESH_MS', (ms) => `; ${ms / 1000} s without one`],
  ['endpoint-source.ts', 'MIN_REFRESH_MS', (ms) => `never before ${ms / 1000} s`],
  ['endpoint-source.ts', 'MAX_REFRESH_MS', (ms) => `more than ${ms / 3_600_000} h`],
  ['endpoint-source.ts', 'FIRST_RETRY_MS', (ms) => `after ${ms / 1000} s, ${ms / 500} s`],
  ['endpoint-client.ts', 'TIMEOUT_MS', (ms) => `at most ${ms / 1000} s (\`timeoutMs\``],
  ['endpoint-client.ts', 'MAX_REDIRECTS', (count) => `at most ${count} (\`maxRedirects\`)`],
] as const satisfies readonly (readonly [string, string, (value: number) => string])[]) {
  test(`the page says ${constant} as it stands in ${file}`, () => {
    const value = new RegExp(`const ${constant} = ([\\d_]+);`).exec(read(`spiffe/bundle/${file}`))?.[1];
    expect(page).toContain(told(Number(value?.replaceAll('_', ''))));
  });
}
