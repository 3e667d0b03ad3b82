/** Tokens and keys in files: for whom, until when, who may read them, and when the next one is fetched. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { renewalDelayMs } from '../../../proxy/helper/jwt-files.ts';
import type { JwtSvid } from '../../../spiffe/jwt/jwt-svid.ts';
import { Bundle } from '../../../spiffe/bundle/bundle.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { Rig, until } from './rig.ts';

let rig: Rig;
let dir: string;
beforeEach(async () => {
  rig = new Rig({
    identities: [
      { path: '/web', hint: 'first' },
      { path: '/db', hint: 'second' },
    ],
  });
  await rig.api.start();
  dir = rig.folder('d');
});
afterEach(() => rig[Symbol.asyncDispose]());

const claims = (name: string) =>
  JSON.parse(Buffer.from(rig.read('d', name).split('.')[1] ?? '', 'base64url').toString()) as {
    sub: string;
    aud: string | string[];
    exp: number;
  };
const mode = (name: string) => (statSync(join(dir, name)).mode & 0o7777).toString(8);
const bundleStreams = () => rig.api.calls.filter(({ method }) => method === 'FetchJWTBundles').length;

describe('HP-7 a token', { timeout: 20_000 }, () => {
  for (const daemon of [true, false]) {
    test(`has every audience ${daemon ? 'as a daemon' : 'in init'}, and its mode`, async () => {
      const helper = await rig.start(`cert_dir = "${dir}" daemon_mode = ${daemon}
jwt_svids = [{ jwt_audience = "a", jwt_extra_audiences = ["b", "c"], jwt_svid_file_name = "one" }, { jwt_audience = "d", jwt_svid_file_name = "two" }]
jwt_bundle_file_name = "bundle.json" jwt_svid_file_mode = 0640 jwt_bundle_file_mode = 0444`);
      if (!daemon) expect(await helper.code).toBe(0);
      await until('written', () => claims('one') && claims('two') && rig.read('d', 'bundle.json'));
      expect(claims('one')).toMatchObject({ sub: 'spiffe://example.org/web', aud: ['a', 'b', 'c'] });
      expect([claims('two').aud].flat()).toEqual(['d']);
      expect(['one', 'two', 'bundle.json'].map(mode)).toEqual(['640', '640', '444']);
      const bundles = JSON.parse(rig.read('d', 'bundle.json')) as Record<string, string>;
      const jwks = JSON.parse(Buffer.from(bundles['example.org'] ?? '', 'base64').toString()) as { keys: unknown[] };
      expect(jwks.keys.length).toBeGreaterThan(0);
    });
  }

  test('without a mode is for its owner alone', async () => {
    await rig.start(`cert_dir = "${dir}" jwt_svids = [{ jwt_audience = "a", jwt_svid_file_name = "one" }]`);
    await until('written', () => claims('one'));
    expect(mode('one')).toBe('600');
  });

  test('is of the identity that the hint or the SPIFFE ID says', async () => {
    await rig.start(`
output "hint" { format = "jwt" directory = "${dir}" hint = "second" audiences = ["a"] file_name = "hint" }
output "id" { format = "jwt" directory = "${dir}" spiffe_id = "spiffe://example.org/db" audiences = ["a"] file_name = "id" }
output "any" { format = "jwt" directory = "${dir}" audiences = ["a"] file_name = "any" }`);
    await until('written', () => claims('hint') && claims('id') && claims('any'));
    expect(['hint', 'id', 'any'].map((name) => claims(name).sub)).toEqual([
      'spiffe://example.org/db',
      'spiffe://example.org/db',
      'spiffe://example.org/web',
    ]);
  });

  test('is renewed before it ends, and hooks hear of it', async () => {
    rig.api.set({ identities: [{ path: '/web', jwtTtlMs: 4_000 }] });
    await rig.start(`cert_dir = "${dir}" jwt_svids = [{ jwt_audience = "a", jwt_svid_file_name = "one" }]
hook "h" { kinds = ["jwt"] debounce = "0s" command = ["sh", "-c", "echo run >> ${rig.directory}/runs"] }`);
    await until('written', () => claims('one'));
    const first = claims('one').exp;
    await until('renewed', () => claims('one').exp > first, 6_000);
    expect(Date.now() / 1000).toBeLessThan(first);
    await until('told', () => rig.read('runs') === 'run\nrun\n');
  });

  test('stays when the identity is taken back, and is new when that is over', async () => {
    rig.api.set({ identities: [{ path: '/web', jwtTtlMs: 2_000 }] });
    const helper = await rig.start(`cert_dir = "${dir}" jwt_svids = [{ jwt_audience = "a", jwt_svid_file_name = "one" }]`);
    await until('written', () => claims('one'));
    rig.api.deny();
    const first = rig.read('d', 'one');
    await until('asked again and again', () => bundleStreams() >= 3);
    expect(rig.read('d', 'one')).toBe(first);
    expect(helper.log.warnings).toBeGreaterThan(0);
    rig.api.resume();
    await until('new', () => rig.read('d', 'one') !== first);
  });
});

describe('HP-7 the next token is fetched', () => {
  const NOW = 1_000_000_000_000;
  const of = (issuedAtMs: number | undefined, expiresMs: number) => ({ issuedAtMs, expiresMs }) as JwtSvid;
  test.each([
    ['at half of its life', of(NOW, NOW + 300_000), 0, 150_000],
    ['up to a tenth sooner, by chance', of(NOW, NOW + 300_000), 1, 135_000],
    ['by the life that its issuer meant, where our clock is behind', of(NOW + 60_000, NOW + 360_000), 0, 150_000],
    ['by what is left, where our clock is ahead', of(NOW - 200_000, NOW + 100_000), 0, 50_000],
    ['by what is left, where it does not say when it was issued', of(undefined, NOW + 100_000), 0, 50_000],
    ['not without end, where its life is very short', of(NOW, NOW + 100), 0, 500],
    ['soon, where it has ended', of(NOW - 300_000, NOW - 1), 0, 500],
  ])('%s', (_, svid, random, wait) => expect(renewalDelayMs(svid, NOW, () => random)).toBe(wait));
});

describe('HP-4 keys that judge', { timeout: 20_000 }, () => {
  test('as JWKS and as a SPIFFE bundle, of our own trust domain or of one that is named', async () => {
    rig.api.set({ federated: [EphemeralTrustDomain.create('other.org')] });
    await rig.start(`
output "jwks" { format = "jwks" directory = "${dir}" }
output "own" { format = "spiffe_bundle" directory = "${dir}" }
output "other" { format = "spiffe_bundle" directory = "${dir}" trust_domain = "other.org" file_name = "other.json" file_mode = 0600 }`);
    await until('written', () => rig.read('d', 'jwks.json') && rig.read('d', 'bundle.json') && rig.read('d', 'other.json'));
    const own = Bundle.fromJson(rig.trustDomain.trustDomain, rig.read('d', 'bundle.json'));
    expect(own.x509.authorities.map((one) => one.sha256)).toEqual(rig.trustDomain.bundle.x509.authorities.map((one) => one.sha256));
    const kids = (name: string) =>
      (JSON.parse(rig.read('d', name)) as { keys: { kid?: string }[] }).keys.map(({ kid }) => kid).filter(Boolean);
    expect(kids('jwks.json')).toEqual(kids('bundle.json'));
    expect(kids('other.json')).not.toEqual(kids('bundle.json'));
    expect(['jwks.json', 'other.json'].map(mode)).toEqual(['644', '600']);
  });
});
