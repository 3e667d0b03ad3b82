/** UpstreamAuthority "disk": what the PKI team may hand over, what is refused at start and in which words, and how new files are taken over. */
import type { KeyObject } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { SpiffeError } from '../../../spiffe/errors.ts';
import type { CaBelow, Direct, DirectAuthority, UpstreamAuthority } from '../../../core/plugin/upstream-authority.ts';
import { buildCaCsr, issueX509Svid } from '../../../core/x509/issue.ts';
import { buildCsrWith } from '../../../core/x509/csr.ts';
import { generateEcKey, spkiDer } from '../../../core/x509/key.ts';
import { disk } from '../../../plugins/upstream-authority/disk/disk.ts';
import { diskSettings } from '../../../plugins/upstream-authority/disk/settings.ts';
import { Certificate } from '../../../spiffe/x509/certificate.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { Latest } from '../../../spiffe/latest.ts';
import {
  NOW_MS,
  type TestCertificate,
  testCertificate,
  type TestCertificateOptions,
  type TestKeyType,
  testRoot,
  x509,
} from '../../fakes/ca.ts';
import { FakeClock } from '../../fakes/clock.ts';
import { CountingLog } from '../../fakes/log.ts';
import { opensslVerdict } from '../../fakes/openssl.ts';
import { newSigningKey } from '../../fakes/signing-key.ts';

const td = TrustDomain.parse('example.org');
const web = SpiffeId.parse('spiffe://example.org/web');
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const span = { notBeforeMs: NOW_MS - DAY_MS, notAfterMs: NOW_MS + 3 * DAY_MS };

let dir: string;
let clock: FakeClock;
let log: CountingLog;
let stop: AbortController;
let reloads: Latest<number>;
let root: TestCertificate;
beforeAll(async () => {
  root = await testRoot({ subject: 'C=JP, O=Example Holdings, CN=Root', uris: [], ...span });
});
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'upstream-'));
  clock = new FakeClock(NOW_MS);
  log = new CountingLog();
  stop = new AbortController();
  reloads = new Latest(0);
});
afterEach(() => {
  stop.abort();
  rmSync(dir, { recursive: true });
});

const at = (name: string) => join(dir, name);

type KeyForm = 'pkcs8' | 'sec1' | 'pkcs1';

function keyPem(key: KeyObject, form: KeyForm = 'pkcs8'): string {
  return String(key.export({ type: form, format: 'pem' }));
}

function put(name: 'ca.pem' | 'ca.key' | 'roots.pem', text: string, mode = 0o600): void {
  writeFileSync(at(name), text, { mode });
}

function putSet(chain: readonly TestCertificate[], roots: readonly TestCertificate[] = [root], form: KeyForm = 'pkcs8'): void {
  put('ca.pem', chain.map(({ pem }) => pem).join(''));
  put('ca.key', keyPem((chain[0] as TestCertificate).key, form));
  put('roots.pem', roots.map(({ pem }) => pem).join(''));
}

/** As an enterprise's: no SPIFFE ID in it. */
function intermediate(options: TestCertificateOptions = {}): Promise<TestCertificate> {
  return testCertificate({ ca: true, uris: [], issuer: root, ...span, ...options });
}

function start(more: Record<string, unknown> = {}): Promise<UpstreamAuthority> {
  const settings = diskSettings.parse({
    cert_file_path: at('ca.pem'),
    key_file_path: at('ca.key'),
    bundle_file_path: at('roots.pem'),
    ...more,
  });
  return disk.start(settings, { trustDomain: td, log, clock, signal: stop.signal, reloads });
}

async function startDirect(more: Record<string, unknown> = {}): Promise<Direct> {
  return (await start({ sign_directly: true, ...more })) as Direct;
}

/** '' when it starts. */
async function refusal(more: Record<string, unknown> = {}): Promise<string> {
  try {
    await start(more);
    return '';
  } catch (error) {
    expect(error).toBeInstanceOf(SpiffeError);
    expect((error as SpiffeError<string>).code).toBe('SETTINGS_INVALID');
    return (error as Error).message;
  }
}

async function firstOf(direct: Direct): Promise<DirectAuthority> {
  for await (const authority of direct.authorities(stop.signal)) return authority;
  throw new Error('ended');
}

const subject = { country: ['US'], organization: ['SPIFFE'] };

async function mint(upstream: UpstreamAuthority, ttlMs = HOUR_MS) {
  const key = await newSigningKey();
  const minted = await (upstream as CaBelow).mintX509Ca(await buildCaCsr({ key, trustDomain: td, subject }), ttlMs, stop.signal);
  return { ...minted, key };
}

/** A leaf below what the upstream gave, judged by openssl. */
async function verdictOf(given: {
  chainDer: readonly Buffer[];
  rootsDer: readonly Buffer[];
  key: DirectAuthority['key'];
}): Promise<string> {
  const { der } = await issueX509Svid({
    issuer: { certificate: Certificate.parse(given.chainDer[0] as Buffer), key: given.key },
    spkiDer: spkiDer(generateEcKey()),
    spiffeId: web,
    notBeforeMs: NOW_MS - 10_000,
    notAfterMs: NOW_MS + 600_000,
  });
  return opensslVerdict([der, ...given.chainDer], given.rootsDer, NOW_MS);
}

/** Lets the plugin look at its files as often as it would in this time. */
async function pass(ms: number): Promise<void> {
  for (let gone = 0; gone < ms; gone += 5_000) {
    await clock.advance(5_000);
    while (clock.waiting === 0) await setImmediate();
  }
}

describe('what is taken', () => {
  const kinds: readonly (readonly [TestKeyType, KeyForm])[] = [
    ['ec-p256', 'pkcs8'],
    ['ec-p256', 'sec1'],
    ['ec-p384', 'pkcs8'],
    ['ec-p384', 'sec1'],
    ['rsa-2048', 'pkcs8'],
    ['rsa-2048', 'pkcs1'],
    ['rsa-4096', 'pkcs1'],
  ];
  test.each(kinds)(
    'an intermediate of %s, its key as %s: openssl verifies what it signs, in both modes',
    { timeout: 60_000 },
    async (keyType, form) => {
      putSet([await intermediate({ keyType })], [root], form);
      const minted = await mint(await start());
      expect(minted.chainDer).toHaveLength(2);
      expect(await verdictOf(minted)).toBe('OK');
      const authority = await firstOf(await startDirect());
      expect(authority.chainDer).toHaveLength(1);
      expect(await verdictOf(authority)).toBe('OK');
    },
  );

  test('a chain in the certificate file while the bundle holds the root alone; a root in the chain is not sent on', async () => {
    const policy = await intermediate({ subject: 'CN=Policy CA' });
    const issuing = await intermediate({ issuer: policy });
    for (const chain of [
      [issuing, policy],
      [issuing, policy, root],
    ]) {
      putSet(chain);
      const minted = await mint(await start());
      expect(minted.chainDer.slice(1)).toEqual([issuing.der, policy.der]);
      expect(minted.rootsDer).toEqual([root.der]);
      expect(await verdictOf(minted)).toBe('OK');
      expect((await firstOf(await startDirect())).chainDer).toEqual([issuing.der, policy.der]);
    }
  });

  test('pathlen:0 signs directly; pathlen:1 allows a CA below', async () => {
    putSet([await intermediate({ pathLen: 0 })]);
    expect(await verdictOf(await firstOf(await startDirect()))).toBe('OK');
    putSet([await intermediate({ pathLen: 1 })]);
    expect(await verdictOf(await mint(await start()))).toBe('OK');
  });

  test('a CA below ends no later than anything above it, the root too', async () => {
    const longLived = { notBeforeMs: NOW_MS - DAY_MS, notAfterMs: NOW_MS + 90 * DAY_MS };
    const policy = await intermediate({ subject: 'CN=Policy', notAfterMs: NOW_MS + 5 * HOUR_MS });
    putSet([await intermediate({ issuer: policy, ...longLived }), policy]);
    const [below] = (await mint(await start(), 30 * DAY_MS)).chainDer;
    expect(Certificate.parse(below as Buffer).notAfterMs).toBe(NOW_MS + 5 * HOUR_MS);
    putSet([await intermediate(longLived)]);
    const [other] = (await mint(await start(), 30 * DAY_MS)).chainDer;
    expect(Certificate.parse(other as Buffer).notAfterMs).toBe(span.notAfterMs);
  });

  test('a key file is read by its owner alone; others only with insecure_key_file_mode', async () => {
    putSet([await intermediate()]);
    for (const mode of [0o600, 0o400]) {
      chmodSync(at('ca.key'), mode);
      expect(await refusal()).toBe('');
    }
    for (const mode of [0o640, 0o604, 0o660, 0o644]) {
      chmodSync(at('ca.key'), mode);
      expect(await refusal()).toContain(`has mode ${mode.toString(8)}`);
      expect(await refusal()).toContain('insecure_key_file_mode');
      expect(await refusal({ insecure_key_file_mode: true })).toBe('');
    }
  });

  test('a self-signed root only by an explicit setting, said loudly; it is in the bundle and is not sent', async () => {
    putSet([root]);
    expect(await refusal()).toContain('insecure_self_signed_root');
    expect(log.warnings).toBe(0);
    for (const bundle_file_path of [undefined, at('roots.pem')]) {
      const minted = await mint(await start({ insecure_self_signed_root: true, bundle_file_path }));
      expect(minted.chainDer).toHaveLength(1);
      expect(minted.rootsDer).toEqual([root.der]);
      expect(await verdictOf(minted)).toBe('OK');
    }
    expect(log.warnings).toBe(2);
  });
});

describe('what is refused at start, by name and with what to ask for', () => {
  const constrained = (...hosts: string[]) => {
    const tlv = (tag: number, ...parts: Buffer[]) => {
      const body = Buffer.concat(parts);
      return Buffer.concat([Buffer.from([tag, body.length]), body]);
    };
    const subtrees = hosts.map((host) => tlv(0x30, tlv(0x86, Buffer.from(host))));
    return { extensions: [new x509.Extension('2.5.29.30', true, tlv(0x30, tlv(0xa0, ...subtrees)))] };
  };
  const faults: readonly (readonly [
    what: string,
    bad: () => Promise<void>,
    good: () => Promise<void>,
    words: readonly string[],
    settings?: Record<string, unknown>,
  ])[] = [
    [
      'an expired intermediate',
      async () => putSet([await intermediate({ subject: 'CN=Late', notAfterMs: NOW_MS - 1_000 })]),
      async () => putSet([await intermediate({ notAfterMs: NOW_MS + 60_000 })]),
      ['CN=Late', 'expired at 2026-06-01T11:59:59.000Z', 'ask the PKI team for a renewed certificate'],
    ],
    [
      'an intermediate that is not valid yet',
      async () => putSet([await intermediate({ subject: 'CN=Early', notBeforeMs: NOW_MS + 1_000 })]),
      async () => putSet([await intermediate({ notBeforeMs: NOW_MS })]),
      ['CN=Early', 'not valid before 2026-06-01T12:00:01.000Z'],
    ],
    [
      'an expired CA above it',
      async () => {
        const policy = await intermediate({ subject: 'CN=Policy', notAfterMs: NOW_MS - 1_000 });
        putSet([await intermediate({ issuer: policy }), policy]);
      },
      async () => {
        const policy = await intermediate({ subject: 'CN=Policy', notAfterMs: NOW_MS + 60_000 });
        putSet([await intermediate({ issuer: policy }), policy]);
      },
      ['CN=Policy', 'expired at', 'renewed certificate'],
    ],
    [
      'an expired root',
      async () => {
        const old = await testRoot({ subject: 'CN=Old Root', uris: [], notBeforeMs: NOW_MS - DAY_MS, notAfterMs: NOW_MS - 1_000 });
        putSet([await intermediate({ issuer: old })], [old]);
      },
      async () => putSet([await intermediate()]),
      ['CN=Old Root', 'expired at'],
    ],
    [
      'the key of another certificate',
      async () => {
        putSet([await intermediate({ subject: 'CN=Mine' })]);
        put('ca.key', keyPem((await intermediate()).key));
      },
      async () => putSet([await intermediate()]),
      ['ca.key', 'does not match', 'CN=Mine', 'ca.pem'],
    ],
    [
      'a certificate without the CA bit',
      async () => putSet([await intermediate({ ca: false, subject: 'CN=Machine', usages: ['keyCertSign'], purposes: null })]),
      async () => putSet([await intermediate()]),
      ['CN=Machine', 'no CA certificate'],
    ],
    [
      'a CA without keyCertSign',
      async () => putSet([await intermediate({ usages: ['cRLSign', 'digitalSignature'], subject: 'CN=Crl' })]),
      async () => putSet([await intermediate({ usages: ['keyCertSign'] })]),
      ['CN=Crl', 'keyCertSign'],
    ],
    [
      'pathlen:0 without sign_directly, naming both ways out',
      async () => putSet([await intermediate({ pathLen: 0 })]),
      async () => putSet([await intermediate({ pathLen: 1 })]),
      ['pathlen:0', 'sign_directly = true', 'pathlen:1 or more'],
    ],
    [
      'a path length further up that forbids one more CA, naming both ways out',
      async () => {
        const policy = await intermediate({ subject: 'CN=Policy', pathLen: 1 });
        putSet([await intermediate({ issuer: policy }), policy]);
      },
      async () => {
        const policy = await intermediate({ subject: 'CN=Policy', pathLen: 2 });
        putSet([await intermediate({ issuer: policy }), policy]);
      },
      ['pathlen:1', 'sign_directly = true', 'ask the PKI team'],
    ],
    [
      'a path length further up that forbids even signing directly',
      async () => {
        const policy = await intermediate({ subject: 'CN=Policy', pathLen: 0 });
        putSet([await intermediate({ issuer: policy }), policy]);
      },
      async () => {
        const policy = await intermediate({ subject: 'CN=Policy', pathLen: 1 });
        putSet([await intermediate({ issuer: policy }), policy]);
      },
      ['CN=Policy', 'pathlen:0', 'ask the PKI team'],
      { sign_directly: true },
    ],
    [
      'name constraints that forbid our trust domain',
      async () => putSet([await intermediate(constrained('other.example'))]),
      async () => putSet([await intermediate(constrained('other.example', 'example.org'))]),
      ['spiffe://example.org', 'permitted names', 'name constraints', 'ask the PKI team'],
    ],
    [
      'name constraints that permit only what is below our trust domain',
      async () => putSet([await intermediate(constrained('.example.org'))]),
      async () => putSet([await intermediate(constrained('example.org'))]),
      ['permitted names'],
      { sign_directly: true },
    ],
    [
      'a critical extension that nobody understands',
      async () => putSet([await intermediate({ extensions: [new x509.Extension('1.2.3.4', true, Buffer.from([5, 0]))] })]),
      async () => putSet([await intermediate({ extensions: [new x509.Extension('1.2.3.4', false, Buffer.from([5, 0]))] })]),
      ['critical extension', 'without it'],
    ],
    [
      'a chain that leads to another root',
      async () => putSet([await intermediate()], [await testRoot({ subject: 'CN=Stranger', uris: [] })]),
      async () => putSet([await intermediate()], [await testRoot({ subject: 'CN=Stranger', uris: [] }), root]),
      ['bundle_file_path', 'unknown authority'],
    ],
    [
      'a root of the right name that did not sign the chain',
      async () => putSet([await intermediate()], [await testRoot({ subject: root.subject, uris: [], keyIdentifiers: false })]),
      async () => putSet([await intermediate()]),
      ['ask the PKI team for the root that signed this chain'],
    ],
    [
      'a chain with a certificate missing in the middle',
      async () => putSet([await intermediate({ issuer: await intermediate({ subject: 'CN=Policy' }) })]),
      async () => {
        const policy = await intermediate({ subject: 'CN=Policy' });
        putSet([await intermediate({ issuer: policy }), policy]);
      },
      ['the whole chain without the root'],
    ],
    [
      'a bundle that holds the intermediate itself',
      async () => {
        const issuing = await intermediate();
        putSet([issuing], [issuing, root]);
      },
      async () => putSet([await intermediate()]),
      ['it must begin with the intermediate'],
    ],
    [
      'malformed PEM where the certificate should be',
      async () => {
        const issuing = await intermediate();
        putSet([issuing]);
        put('ca.pem', issuing.pem.replace('-----END', '----END'));
      },
      async () => putSet([await intermediate()]),
      ['ca.pem'],
    ],
    [
      'a certificate that is cut off',
      async () => {
        const issuing = await intermediate();
        putSet([issuing]);
        put('ca.pem', x509.PemConverter.encode(issuing.der.subarray(0, -7), 'CERTIFICATE'));
      },
      async () => putSet([await intermediate()]),
      ['ca.pem'],
    ],
    [
      'an empty certificate file',
      async () => {
        putSet([await intermediate()]);
        put('ca.pem', '');
      },
      async () => putSet([await intermediate()]),
      ['ca.pem', 'no certificate'],
    ],
    [
      'an empty bundle',
      async () => putSet([await intermediate()], []),
      async () => putSet([await intermediate()]),
      ['roots.pem', 'no certificate'],
    ],
    [
      'a certificate where the key should be',
      async () => {
        const issuing = await intermediate();
        putSet([issuing]);
        put('ca.key', issuing.pem);
      },
      async () => putSet([await intermediate()]),
      ['ca.key', 'no private key found'],
    ],
    [
      'an encrypted key',
      async () => {
        const issuing = await intermediate();
        putSet([issuing]);
        put('ca.key', String(issuing.key.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' })));
      },
      async () => putSet([await intermediate()]),
      ['ca.key', 'encrypted'],
    ],
    [
      'two keys in one file',
      async () => {
        const issuing = await intermediate();
        putSet([issuing]);
        put('ca.key', keyPem(issuing.key) + keyPem(root.key));
      },
      async () => putSet([await intermediate()]),
      ['ca.key', 'more than one private key'],
    ],
    [
      'a key of a size that is not taken',
      async () => putSet([await intermediate({ keyType: 'rsa-3072' })]),
      async () => putSet([await intermediate({ keyType: 'rsa-2048' })]),
      ['ca.key', 'rsa-4096'],
    ],
    [
      'a file that is not there',
      async () => {
        putSet([await intermediate()]);
        rmSync(at('roots.pem'));
      },
      async () => putSet([await intermediate()]),
      ['roots.pem cannot be read'],
    ],
  ];
  for (const [what, bad, good, words, settings] of faults) {
    test(what, { timeout: 30_000 }, async () => {
      await good();
      expect(await refusal(settings)).toBe('');
      await bad();
      const message = await refusal(settings);
      for (const word of words) expect(message).toContain(word);
    });
  }

  test('a bundle_file_path left out, but for a self-signed root', async () => {
    putSet([await intermediate()]);
    expect(await refusal({ bundle_file_path: undefined })).toContain('bundle_file_path is missing');
  });

  test('no fault ever shows a byte of the key', async () => {
    const issuing = await intermediate();
    putSet([issuing]);
    const pem = keyPem(issuing.key);
    put('ca.key', pem.replace('-----END', '----END'));
    expect(await refusal()).not.toContain(pem.split('\n')[1]);
    put('ca.key', pem.slice(0, 80));
    expect(await refusal()).not.toContain(pem.split('\n')[1]?.slice(0, 20));
  });
});

describe('a request that the upstream must not sign', () => {
  test('names another trust domain, a path, nothing, or is forged', async () => {
    putSet([await intermediate()]);
    const upstream = (await start()) as CaBelow;
    const key = await newSigningKey();
    const sign = (csr: Buffer) => upstream.mintX509Ca(csr, HOUR_MS, stop.signal);
    const good = await buildCsrWith({ key, subject, uri: 'spiffe://example.org' });
    await expect(sign(good)).resolves.toBeDefined();
    await expect(sign(await buildCsrWith({ key, subject, uri: 'spiffe://other.example' }))).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
    });
    await expect(sign(await buildCsrWith({ key, subject, uri: 'spiffe://example.org/web' }))).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
    });
    await expect(sign(await buildCsrWith({ key, subject }))).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    const forged = Buffer.from(good);
    forged[forged.length - 1] = (forged.at(-1) as number) ^ 1;
    await expect(sign(forged)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });

  test('an intermediate that has ended signs nothing more', async () => {
    putSet([await intermediate({ notAfterMs: NOW_MS + HOUR_MS })]);
    const upstream = await start();
    await expect(mint(upstream)).resolves.toBeDefined();
    clock.jump(2 * HOUR_MS);
    await expect(mint(upstream)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  });
});

describe('new files', () => {
  /** What comes after the first. */
  function following(direct: Direct): { next(): Promise<DirectAuthority>; readonly seen: number } {
    const authorities = direct.authorities(stop.signal)[Symbol.asyncIterator]();
    let seen = 0;
    return {
      async next() {
        const { value } = await authorities.next();
        seen++;
        return value as DirectAuthority;
      },
      get seen() {
        return seen;
      },
    };
  }

  test('a renewed certificate over the same key is taken over at the next look', async () => {
    const first = await intermediate();
    putSet([first]);
    const changes = following(await startDirect());
    expect((await changes.next()).chainDer).toEqual([first.der]);
    const renewed = await intermediate({ keys: first.keys, subject: first.subject, notAfterMs: NOW_MS + DAY_MS - 1_000 });
    put('ca.pem', renewed.pem);
    const next = changes.next();
    await pass(5_000);
    const taken = await next;
    expect(taken.chainDer).toEqual([renewed.der]);
    expect(await verdictOf(taken)).toBe('OK');
  });

  test('SIGUSR1 takes it over without waiting', async () => {
    putSet([await intermediate()]);
    const changes = following(await startDirect());
    await changes.next();
    const other = await intermediate();
    putSet([other]);
    reloads.set(1);
    expect((await changes.next()).chainDer).toEqual([other.der]);
    expect(clock.monotonic()).toBe(0);
  });

  test('a key pair written in two steps: the old one goes on, nobody is warned for 60 s, the whole set is taken when it fits', async () => {
    const first = await intermediate();
    putSet([first]);
    const direct = await startDirect();
    const second = await intermediate();
    put('ca.key', keyPem(second.key));
    await pass(55_000);
    expect((await firstOf(direct)).chainDer).toEqual([first.der]);
    expect([log.errors, log.warnings]).toEqual([0, 0]);
    put('ca.pem', second.pem);
    await pass(5_000);
    expect((await firstOf(direct)).chainDer).toEqual([second.der]);
    await pass(120_000);
    expect([log.errors, log.warnings]).toEqual([0, 0]);
  });

  test('a mismatch that lasts is told once after 60 s, again only after it was mended, and the old one signs all along', async () => {
    const first = await intermediate();
    putSet([first]);
    const direct = await startDirect();
    const stranger = keyPem((await intermediate()).key);
    put('ca.key', stranger);
    await pass(60_000);
    expect(log.errors).toBe(0);
    await pass(10_000);
    expect(log.errors).toBe(1);
    await pass(300_000);
    expect(log.errors).toBe(1);
    expect(await verdictOf(await firstOf(direct))).toBe('OK');
    put('ca.key', keyPem(first.key));
    await pass(5_000);
    put('ca.key', stranger);
    await pass(70_000);
    expect(log.errors).toBe(2);
  });

  test('whatever is refused at start is refused later, and the old one goes on', async () => {
    const first = await intermediate();
    putSet([first]);
    const direct = await startDirect();
    const stranger = await testRoot({ uris: [], ...span });
    for (const spoil of [
      () => rmSync(at('ca.pem')),
      () => put('ca.pem', 'nothing'),
      () => putSet([first], [stranger]),
      () => chmodSync(at('ca.key'), 0o644),
    ]) {
      putSet([first]);
      spoil();
      await pass(10_000);
      expect((await firstOf(direct)).rootsDer).toEqual([root.der]);
      expect((await firstOf(direct)).chainDer).toEqual([first.der]);
      chmodSync(at('ca.key'), 0o600);
    }
  });

  test('a new root is told to who follows the roots, the same roots are not', async () => {
    const first = await intermediate();
    putSet([first]);
    const upstream = (await start()) as CaBelow;
    const roots = upstream.roots(stop.signal)[Symbol.asyncIterator]();
    expect((await roots.next()).value).toEqual([root.der]);
    const next = roots.next();
    let told = false;
    void next.then(
      () => (told = true),
      () => {},
    );
    putSet([await intermediate()]);
    await pass(5_000);
    expect(told).toBe(false);
    const second = await testRoot({ uris: [], ...span });
    putSet([await intermediate({ issuer: second })], [second, root]);
    await pass(5_000);
    expect((await next).value).toEqual([second.der, root.der]);
  });

  test('a CA is minted from the newest set even before the next look', async () => {
    putSet([await intermediate()]);
    const upstream = await start();
    const second = await intermediate();
    putSet([second]);
    expect((await mint(upstream)).chainDer[1]).toEqual(second.der);
    put('ca.key', keyPem(root.key));
    expect((await mint(upstream)).chainDer[1]).toEqual(second.der);
    expect([log.errors, log.warnings]).toEqual([0, 0]);
  });
});

describe('an intermediate without a successor', () => {
  test('warnings when 1/2, 1/6 and 1/20 of its lifetime are left, one each', async () => {
    const long = 240 * HOUR_MS;
    const old = await testRoot({ uris: [], notBeforeMs: NOW_MS, notAfterMs: NOW_MS + 2 * long });
    putSet([await intermediate({ issuer: old, notBeforeMs: NOW_MS, notAfterMs: NOW_MS + long })], [old]);
    await startDirect();
    const warned: number[] = [];
    for (const left of [0.6, 0.501, 0.499, 0.17, 0.166, 0.051, 0.049, 0.001]) {
      clock.jump(NOW_MS + long * (1 - left) - clock.now());
      await pass(5_000);
      warned.push(log.warnings);
    }
    expect(warned).toEqual([0, 0, 1, 1, 2, 2, 3, 3]);
  });

  test('a successor ends the reminders, and has its own', async () => {
    const old = await testRoot({ uris: [], notBeforeMs: NOW_MS, notAfterMs: NOW_MS + 1000 * HOUR_MS });
    const lasting = (hours: number) => intermediate({ issuer: old, notBeforeMs: NOW_MS, notAfterMs: NOW_MS + hours * HOUR_MS });
    putSet([await lasting(100)], [old]);
    await startDirect();
    clock.jump(60 * HOUR_MS);
    await pass(10_000);
    expect(log.warnings).toBe(1);
    putSet([await lasting(400)], [old]);
    await pass(10_000);
    expect(log.warnings).toBe(1);
    clock.jump(150 * HOUR_MS);
    await pass(10_000);
    expect(log.warnings).toBe(2);
  });
});

describe("an intermediate whose extended key usage OpenSSL's users would hold against SVIDs", () => {
  const rows: readonly [what: string, purposes: readonly string[] | null, warnings: number][] = [
    ['none', null, 0],
    ['both', ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'], 0],
    ['any', ['2.5.29.37.0'], 0],
    ['servers only', ['1.3.6.1.5.5.7.3.1'], 1],
    ['signing of code', ['1.3.6.1.5.5.7.3.3'], 1],
  ];
  for (const [what, purposes, warnings] of rows) {
    test(`${what}: ${warnings === 0 ? 'nothing is said' : 'it serves, and a warning says so'}`, async () => {
      putSet([await intermediate({ purposes })]);
      await start();
      expect([log.errors, log.warnings]).toEqual([0, warnings]);
    });
  }
});
