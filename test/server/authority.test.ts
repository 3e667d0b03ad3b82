/** What is signed: lifetimes that no authority outlives, SPIRE's shape, path lengths that are kept; judged by openssl, @peculiar/x509 and jose. */
import { createPublicKey } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { localSigningKey } from '../../core/local-key.ts';
import { silent } from '../../core/log.ts';
import { KEY_TYPES, type KeyType } from '../../core/plugin/key-manager.ts';
import type { UpstreamAuthority } from '../../core/plugin/upstream-authority.ts';
import { issueX509Svid } from '../../core/x509/issue.ts';
import { generateEcKey, generateKey, spkiDer } from '../../core/x509/key.ts';
import { serverMemory } from '../../plugins/key-manager/memory.ts';
import { Authority, type AuthoritySettings, type JwtAuthority } from '../../server/authority.ts';
import { Rotation } from '../../server/rotation.ts';
import { openSqlite } from '../../server/store/sqlite.ts';
import type { Store } from '../../server/store/store.ts';
import { Certificate } from '../../spiffe/x509/certificate.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { Latest } from '../../spiffe/latest.ts';
import { NOW_MS, type TestCertificate, testCertificate, type TestCertificateOptions, testKeys, testRoot, x509 } from '../fakes/ca.ts';
import { FakeClock } from '../fakes/clock.ts';
import { opensslVerdict } from '../fakes/openssl.ts';
import { signingKey } from '../fakes/signing-key.ts';

const td = TrustDomain.parse('example.org');
const web = SpiffeId.parse('spiffe://example.org/web');
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const LONG = { notBeforeMs: NOW_MS - DAY_MS, notAfterMs: NOW_MS + 100 * DAY_MS };
const never = new AbortController().signal;
const leafKey = spkiDer(generateEcKey());

let folder: string;
let store: Store;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'authority-'));
  store = await openSqlite(join(folder, 'db'), new FakeClock(NOW_MS));
});
afterAll(async () => {
  await store.close();
  rmSync(folder, { recursive: true });
});

const settings: AuthoritySettings = {
  trustDomain: td,
  defaultX509SvidTtlMs: HOUR_MS,
  defaultJwtSvidTtlMs: 300_000,
  agentTtlMs: undefined,
  jwtIssuer: undefined,
  disableJwtSvids: false,
};

const root = (options: TestCertificateOptions = {}) => testRoot({ uris: [], ...LONG, ...options });
const below = (issuer: TestCertificate, options: TestCertificateOptions = {}) =>
  testCertificate({ ca: true, uris: [], issuer, ...LONG, ...options });

interface Signing {
  readonly authority: Authority;
  readonly clock: FakeClock;
  readonly rootsDer: readonly Buffer[];
}

/** @param chain root first, the one that signs last */
async function signing(chain: readonly TestCertificate[], over: Partial<AuthoritySettings> = {}): Promise<Signing> {
  const [top, ...rest] = chain;
  const last = chain.at(-1);
  if (!top || !last) throw new Error('no chain');
  const clock = new FakeClock(NOW_MS);
  const upstream: UpstreamAuthority = {
    mode: 'direct',
    authorities: (signal) =>
      new Latest({
        key: signingKey(last.key),
        chainDer: rest.length === 0 ? [top.der] : rest.reverse().map(({ der }) => der),
        rootsDer: [top.der],
      }).changes(signal),
  };
  const host = { trustDomain: td, log: silent, clock, signal: never, reloads: new Latest(0) };
  const rotation = new Rotation(
    {
      trustDomain: td,
      caTtlMs: DAY_MS,
      caKeyType: 'ec-p256',
      jwtKeyType: 'ec-p256',
      caSubject: {},
      disableJwtSvids: false,
      bundleAnchor: 'root',
    },
    { store, keys: await serverMemory.start({}, host), upstream, clock, log: silent },
  );
  await rotation.start(never);
  return { authority: new Authority({ ...settings, ...over }, rotation, clock), clock, rootsDer: [top.der] };
}

/** With a JWT key in hand. */
async function signingJwt(type: KeyType = 'ec-p256', over: Partial<AuthoritySettings> = {}, lifetimeMs = DAY_MS) {
  const jwt: JwtAuthority = {
    id: 'kid-1',
    key: localSigningKey('JWT-Signer-A', type, await generateKey(type)),
    issuedAtMs: NOW_MS,
    notAfterMs: NOW_MS + lifetimeMs,
  };
  const clock = new FakeClock(NOW_MS);
  return { authority: new Authority({ ...settings, ...over }, { x509: undefined, jwt }, clock), clock, jwt };
}

describe('no SVID outlives its issuer, nor anything above it', () => {
  const brief = { notAfterMs: NOW_MS + 2 * HOUR_MS };
  const cases: readonly (readonly [string, () => Promise<readonly TestCertificate[]>])[] = [
    [
      'the issuing certificate',
      async () => {
        const top = await root();
        const policy = await below(top);
        return [top, policy, await below(policy, brief)];
      },
    ],
    [
      'a CA above it',
      async () => {
        const top = await root();
        const policy = await below(top, brief);
        return [top, policy, await below(policy)];
      },
    ],
    [
      'the root',
      async () => {
        const top = await root(brief);
        const policy = await below(top);
        return [top, policy, await below(policy)];
      },
    ],
  ];
  for (const [what, chain] of cases) {
    test(`${what} ends first`, async () => {
      const { authority, clock, rootsDer } = await signing(await chain());
      const capped = await authority.signX509Svid({ spiffeId: web, spkiDer: leafKey, ttlMs: DAY_MS });
      expect(new x509.X509Certificate(capped.chainDer[0] as Buffer).notAfter.getTime()).toBe(brief.notAfterMs);
      expect(capped.notAfterMs).toBe(brief.notAfterMs);
      expect(opensslVerdict(capped.chainDer, rootsDer, brief.notAfterMs - 1_000)).toBe('OK');
      const short = await authority.signX509Svid({ spiffeId: web, spkiDer: leafKey, ttlMs: 60_000 });
      expect(short.notAfterMs).toBe(NOW_MS + 60_000);
      const [ca] = await authority.signDownstreamCa({ spkiDer: leafKey, ttlMs: DAY_MS, subject: {} });
      expect(new x509.X509Certificate(ca as Buffer).notAfter.getTime()).toBe(brief.notAfterMs);
      clock.jump(2 * HOUR_MS - 1_000);
      await expect(authority.signX509Svid({ spiffeId: web, spkiDer: leafKey, ttlMs: 0 })).resolves.toMatchObject(brief);
      clock.jump(1_000);
      await expect(authority.signX509Svid({ spiffeId: web, spkiDer: leafKey, ttlMs: 0 })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
      await expect(authority.signDownstreamCa({ spkiDer: leafKey, ttlMs: 0, subject: {} })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    });
  }

  test('a JWT-SVID ends with the key that signs it', async () => {
    const { authority, clock } = await signingJwt('ec-p256', {}, 60_000);
    const sign = () => authority.signJwtSvid({ spiffeId: web, audience: ['a'], ttlMs: HOUR_MS, jti: false });
    expect((await sign()).expiresMs).toBe(NOW_MS + 60_000);
    clock.jump(60_000);
    await expect(sign()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});

describe('an X.509-SVID', () => {
  test('begins ten seconds ago for clocks that are behind; its end is not moved for it', async () => {
    const { authority } = await signing([await root()]);
    const { chainDer } = await authority.signX509Svid({ spiffeId: web, spkiDer: leafKey, ttlMs: 90_000 });
    const theirs = new x509.X509Certificate(chainDer[0] ?? '');
    expect([theirs.notBefore.getTime(), theirs.notAfter.getTime()]).toEqual([NOW_MS - 10_000, NOW_MS + 90_000]);
  });

  test('lives as long as is asked for, else as the settings say; an agent’s as agent_ttl says', async () => {
    const plain = await signing([await root()]);
    const ends = async (signed: Promise<{ notAfterMs: number }>) => (await signed).notAfterMs - NOW_MS;
    const svid = { spiffeId: web, spkiDer: leafKey };
    const agent = SpiffeId.parse('spiffe://example.org/spire/agent/x');
    expect(await ends(plain.authority.signX509Svid({ ...svid, ttlMs: 0 }))).toBe(HOUR_MS);
    expect(await ends(plain.authority.signX509Svid({ ...svid, ttlMs: 5 * HOUR_MS }))).toBe(5 * HOUR_MS);
    expect(await ends(plain.authority.signAgentSvid(agent, leafKey))).toBe(HOUR_MS);
    const { authority } = await signing([await root()], { agentTtlMs: 7 * HOUR_MS, defaultX509SvidTtlMs: 2 * HOUR_MS });
    expect(await ends(authority.signAgentSvid(agent, leafKey))).toBe(7 * HOUR_MS);
    expect(await ends(authority.signX509Svid({ ...svid, ttlMs: 0 }))).toBe(2 * HOUR_MS);
  });

  test('carries its DNS names, the first of them as its common name, and the key that was asked for', async () => {
    const { authority, rootsDer } = await signing([await root()]);
    const { chainDer } = await authority.signX509Svid({ spiffeId: web, spkiDer: leafKey, ttlMs: 0, dnsNames: ['web.test', 'b.test'] });
    const theirs = new x509.X509Certificate(chainDer[0] ?? '');
    expect(theirs.subject).toBe('C=US, O=SPIRE, CN=web.test');
    const names = theirs.getExtension(x509.SubjectAlternativeNameExtension)?.names.items.map(({ type, value }) => `${type}:${value}`);
    expect(names).toEqual(['dns:web.test', 'dns:b.test', 'url:spiffe://example.org/web']);
    expect(Buffer.from(theirs.publicKey.rawData)).toEqual(leafKey);
    expect(opensslVerdict(chainDer, rootsDer, NOW_MS)).toBe('OK');
  });

  test.each(['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-4096'] as const)(
    'below %s authorities: the issuers come with it, the root does not; openssl and @peculiar/x509 agree',
    { timeout: 60_000 },
    async (keyType) => {
      const top = await root({ keyType });
      const policy = await below(top, { keyType });
      const issuing = await below(policy, { keys: await testKeys(keyType) });
      const { authority, rootsDer } = await signing([top, policy, issuing]);
      const { chainDer } = await authority.signX509Svid({ spiffeId: web, spkiDer: leafKey, ttlMs: 0 });
      expect(chainDer.slice(1)).toEqual([issuing.der, policy.der]);
      expect(opensslVerdict(chainDer, rootsDer, NOW_MS)).toBe('OK');
      const [leaf, ...above] = [...chainDer, ...rootsDer].map((der) => new x509.X509Certificate(der));
      for (let child = leaf as x509.X509Certificate; above.length > 0; child = above.shift() as x509.X509Certificate)
        expect(await child.verify({ publicKey: (above[0] as x509.X509Certificate).publicKey, signatureOnly: true })).toBe(true);
      const stranger = await root({ keyType });
      expect(opensslVerdict(chainDer, [stranger.der], NOW_MS)).not.toBe('OK');
    },
  );

  test('below a self-signed authority it comes alone', async () => {
    const { authority, rootsDer } = await signing([await root()]);
    const { chainDer } = await authority.signX509Svid({ spiffeId: web, spkiDer: leafKey, ttlMs: 0 });
    expect(chainDer).toHaveLength(1);
    expect(opensslVerdict(chainDer, rootsDer, NOW_MS)).toBe('OK');
  });

  test('is refused for another trust domain, without a path, for a weak key', async () => {
    const { authority } = await signing([await root()]);
    const svid = { spiffeId: web, spkiDer: leafKey, ttlMs: 0 };
    await expect(authority.signX509Svid(svid)).resolves.toBeDefined();
    const foreign = SpiffeId.parse('spiffe://other.example/web');
    await expect(authority.signX509Svid({ ...svid, spiffeId: foreign })).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
      reason: 'ID_NOT_MEMBER',
    });
    await expect(authority.signX509Svid({ ...svid, spiffeId: td.id })).rejects.toMatchObject({ code: 'SVID_INVALID' });
    const weak = spkiDer((await testCertificate({ keyType: 'rsa-1024' })).key);
    await expect(authority.signX509Svid({ ...svid, spkiDer: weak })).rejects.toMatchObject({ code: 'REQUEST_INVALID', reason: 'KEY_WEAK' });
  });

  test('ID-28 without an authority: UNAVAILABLE', async () => {
    const authority = new Authority(settings, { x509: undefined, jwt: undefined }, new FakeClock(NOW_MS));
    await expect(authority.signX509Svid({ spiffeId: web, spkiDer: leafKey, ttlMs: 0 })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(authority.signAgentSvid(web, leafKey)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(authority.signDownstreamCa({ spkiDer: leafKey, ttlMs: 0, subject: {} })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(authority.signJwtSvid({ spiffeId: web, audience: ['a'], ttlMs: 0, jti: false })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
  });
});

describe('a CA for a downstream server', () => {
  /** Path lengths from the root to the one that signs; whether one more CA may stand below. */
  const cases: readonly (readonly [pathLens: readonly (number | undefined)[], allowed: boolean])[] = [
    [[undefined], true],
    [[undefined, undefined], true],
    [[0], false],
    [[1], true],
    [[undefined, 0], false],
    [[undefined, 1], true],
    [[1, undefined], false],
    [[2, undefined], true],
    [[undefined, 1, undefined], false],
    [[undefined, 2, undefined], true],
    [[undefined, 2, 0], false],
    [[2, 2, undefined], false],
    [[3, 2, 1], true],
  ];
  for (const [pathLens, allowed] of cases) {
    const words = pathLens.map((one) => one ?? 'none').join(', ');
    test(`X509-15 below path lengths ${words}: ${allowed ? 'issued, and openssl verifies what it signs' : 'FAILED_PRECONDITION'}`, async () => {
      const chain: TestCertificate[] = [];
      for (const pathLen of pathLens) {
        const issuer = chain.at(-1);
        const limit = pathLen === undefined ? {} : { pathLen };
        chain.push(issuer ? await below(issuer, limit) : await root(limit));
      }
      const { authority, rootsDer } = await signing(chain);
      const { chainDer } = await authority.signX509Svid({ spiffeId: web, spkiDer: leafKey, ttlMs: 0 });
      expect(opensslVerdict(chainDer, rootsDer, NOW_MS)).toBe('OK');
      const key = signingKey(generateEcKey());
      const ca = authority.signDownstreamCa({ spkiDer: key.spkiDer, ttlMs: 0, subject: { organization: ['SPIFFE'] } });
      if (!allowed) {
        await expect(ca).rejects.toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'X509_PATH_LEN' });
        return;
      }
      const caChain = await ca;
      const certificate = Certificate.parse(caChain[0] as Buffer);
      expect(certificate.uris).toEqual(['spiffe://example.org']);
      expect(certificate.notAfterMs).toBe(NOW_MS + HOUR_MS);
      const times = { notBeforeMs: NOW_MS - 1_000, notAfterMs: NOW_MS + 60_000 };
      const leaf = await issueX509Svid({ issuer: { certificate, key }, spkiDer: leafKey, spiffeId: web, ...times });
      expect(opensslVerdict([leaf.der, ...caChain], rootsDer, NOW_MS)).toBe('OK');
    });
  }
});

describe('a JWT-SVID', () => {
  test.each(KEY_TYPES)(
    'JWT-3 signed with %s is verified by jose, and its header has nothing that need not be there',
    { timeout: 60_000 },
    async (type) => {
      const { authority, jwt } = await signingJwt(type);
      const svid = await authority.signJwtSvid({ spiffeId: web, audience: ['db', 'cache'], ttlMs: 0, jti: false });
      const publicKey = createPublicKey({ key: jwt.key.spkiDer, format: 'der', type: 'spki' });
      const { payload, protectedHeader } = await jwtVerify(svid.token, publicKey, { audience: 'db', currentDate: new Date(NOW_MS) });
      expect(payload).toEqual({ sub: 'spiffe://example.org/web', aud: ['db', 'cache'], iat: NOW_MS / 1000, exp: NOW_MS / 1000 + 300 });
      const alg = { 'ec-p256': 'ES256', 'ec-p384': 'ES384', 'rsa-2048': 'RS256', 'rsa-4096': 'RS256' }[type];
      expect(protectedHeader).toEqual({ alg, kid: 'kid-1', typ: 'JWT' });
    },
  );

  test('names the issuer of the settings, lives as long as is asked for, and has a jti only when asked for, never twice', async () => {
    const { authority } = await signingJwt('ec-p256', { jwtIssuer: 'https://issuer.test', defaultJwtSvidTtlMs: 120_000 });
    const claims = async (ttlMs: number, jti: boolean) =>
      decodeJwt((await authority.signJwtSvid({ spiffeId: web, audience: ['a'], ttlMs, jti })).token);
    expect(await claims(0, false)).toMatchObject({ iss: 'https://issuer.test', exp: NOW_MS / 1000 + 120 });
    expect(await claims(7_000, false)).toMatchObject({ exp: NOW_MS / 1000 + 7 });
    expect(await claims(0, false)).not.toHaveProperty('jti');
    const ids = new Set((await Promise.all(Array.from({ length: 50 }, () => claims(0, true)))).map(({ jti }) => jti));
    expect(ids.size).toBe(50);
    expect([...ids].every((id) => /^[\w-]{22}$/.test(id ?? ''))).toBe(true);
  });

  test('is refused without an audience, for another trust domain, for the trust domain itself, and when switched off', async () => {
    const { authority } = await signingJwt();
    const request = { spiffeId: web, audience: ['a'], ttlMs: 0, jti: false };
    expect(decodeProtectedHeader((await authority.signJwtSvid(request)).token).kid).toBe('kid-1');
    await expect(authority.signJwtSvid({ ...request, audience: [] })).rejects.toMatchObject({ reason: 'JWT_AUD_MISSING' });
    await expect(authority.signJwtSvid({ ...request, spiffeId: SpiffeId.parse('spiffe://other.example/web') })).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
      reason: 'ID_NOT_MEMBER',
    });
    await expect(authority.signJwtSvid({ ...request, spiffeId: td.id })).rejects.toMatchObject({ reason: 'JWT_SUB' });
    const off = await signingJwt('ec-p256', { disableJwtSvids: true });
    await expect(off.authority.signJwtSvid(request)).rejects.toMatchObject({ code: 'UNIMPLEMENTED' });
  });
});
