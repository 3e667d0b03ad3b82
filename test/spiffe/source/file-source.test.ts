/** X509FileSource: files as spiffe-helper and Kubernetes keep them, swapped, torn, lost and replaced under its eyes. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { X509FileSource, type X509FileSourceOptions } from '../../../spiffe/source/file-source.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { verifyX509Svid } from '../../../spiffe/x509/x509-svid.ts';
import { FakeClock } from '../../fakes/clock.ts';
import { change, closing, failure, refusal, until } from './rig.ts';

const clock = new FakeClock();
const domain = EphemeralTrustDomain.create('example.org', { clock, intermediate: true });
const far = EphemeralTrustDomain.create('far.org', { clock });
const POLL_MS = 1000;

type Texts = Readonly<Record<string, string>>;

/** As spiffe-helper names them. */
function helperFiles(path: string, of = domain): Texts {
  const { certificates, key } = of.x509Svid(path).toPem();
  return { 'svid.pem': certificates, 'svid_key.pem': key, 'svid_bundle.pem': of.bundle.x509.toPem() };
}

function folder(texts: Texts = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'files-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const write = (more: Texts) => {
    for (const [name, text] of Object.entries(more)) writeFileSync(join(directory, name), text);
  };
  write(texts);
  return { directory, write };
}

/** A source of its own clock, and what it told. */
function follow(directory: string, options: Partial<X509FileSourceOptions> = {}) {
  const own = new FakeClock();
  const told: unknown[] = [];
  const warn = (_: string, fields: { readonly error?: unknown } = {}) => void told.push(fields.error);
  const log = { debug() {}, info() {}, warn, error() {} };
  const source = closing(new X509FileSource({ directory, clock: own, log, ...options }));
  /** Lets it look once more, to the end of that look. */
  const look = async () => {
    await until(() => own.waiting === 1);
    await own.advance(POLL_MS);
    await until(() => own.waiting === 1);
  };
  /** The same as often as it takes, while somebody awaits `ready` by the same clock. */
  const looks = async (so: () => boolean) => {
    while (!so()) await own.advance(POLL_MS);
  };
  return { source, told, look, looks, clock: own };
}

describe('a folder', () => {
  test('of spiffe-helper is an identity with the bundle of its trust domain', async () => {
    const { directory } = folder(helperFiles('/web'));
    const { source, told } = follow(directory);
    await source.ready();
    expect(verifyX509Svid(source.svid.chain, source, { nowMs: clock.now() }).id).toEqual(domain.id('/web'));
    expect(source.x509Bundle(far.trustDomain)).toBeUndefined();
    expect([source.waitingFor, told]).toEqual([undefined, []]);
  });

  test('with names of its own, a bundle document and federated bundles in both forms is one too', async () => {
    const { 'svid.pem': cert = '', 'svid_key.pem': key = '' } = helperFiles('/web');
    const third = EphemeralTrustDomain.create('third.org', { clock });
    const { directory } = folder({
      'tls.crt': cert,
      'tls.key': key,
      'bundle.json': domain.bundle.toJson(),
      'far.json': far.bundle.toJson(),
      'third.pem': third.bundle.x509.toPem(),
    });
    const { source } = follow(directory, {
      certificate: 'tls.crt',
      key: 'tls.key',
      bundle: 'bundle.json',
      federated: new Map([
        [far.trustDomain, 'far.json'],
        [third.trustDomain, 'third.pem'],
      ]),
    });
    await source.ready();
    for (const of of [domain, far, third])
      expect(verifyX509Svid(of.rawSvid('/x').chainDer, source, { nowMs: clock.now() }).id).toEqual(of.id('/x'));
  });

  test('may have key and certificates in one file', async () => {
    const { 'svid.pem': cert = '', 'svid_key.pem': key = '', ...rest } = helperFiles('/web');
    const { directory } = folder({ ...rest, 'all.pem': cert + key });
    const { source } = follow(directory, { certificate: 'all.pem', key: 'all.pem' });
    await source.ready();
    expect(source.svid.id.path).toBe('/web');
  });

  test('that is empty is waited for, and told what is missing', async () => {
    const { directory, write } = folder();
    const { source, looks, told } = follow(directory);
    const ready = source.ready();
    await until(() => told.length === 1);
    expect(source.waitingFor).toMatch(/^no X\.509-SVID in .* yet: ENOENT.*svid.*\.pem/);
    expect(await failure(source.ready(AbortSignal.abort()))).toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('ENOENT'),
    });
    expect(refusal(() => source.svid)).toMatchObject({ code: 'UNAVAILABLE' });
    write(helperFiles('/web'));
    await looks(() => source.waitingFor === undefined);
    await ready;
    expect(source.svid.id.path).toBe('/web');
  });
});

describe('new files', () => {
  test('of the same names are taken at the next look, and told to listeners', async () => {
    const { directory, write } = folder(helperFiles('/web'));
    const { source, look } = follow(directory);
    await source.ready();
    const changed = change(source);
    write(helperFiles('/admin'));
    await look();
    await changed;
    expect(source.svid.id.path).toBe('/admin');
  });

  test('that are renamed into place, one after the other, are taken when key and certificate are there', async () => {
    const { directory, write } = folder(helperFiles('/web'));
    const { source, look, told } = follow(directory);
    await source.ready();
    const before = source.svid;
    const files = helperFiles('/admin');
    const move = async (name: string) => {
      write({ [`.${name}`]: files[name] ?? '' });
      renameSync(join(directory, `.${name}`), join(directory, name));
      await look();
    };
    await move('svid_bundle.pem');
    expect(source.svid.equals(before)).toBe(true);
    await move('svid.pem');
    expect(source.svid.equals(before)).toBe(true);
    expect(told).toMatchObject([{ code: 'SVID_INVALID', reason: 'KEY_MISMATCH' }]);
    await move('svid_key.pem');
    expect(source.svid.id.path).toBe('/admin');
  });

  test('that are the same are no change', async () => {
    const files = helperFiles('/web');
    const { directory } = folder(files);
    const { source, look } = follow(directory);
    await source.ready();
    let changes = 0;
    source.onChange(() => changes++);
    await look();
    await look();
    expect(changes).toBe(0);
  });

  test('of Kubernetes come by a swap of the symlink `..data`', async () => {
    const { directory } = folder();
    const swap = (stamp: string, texts: Texts) => {
      mkdirSync(join(directory, stamp));
      for (const [name, text] of Object.entries(texts)) writeFileSync(join(directory, stamp, name), text);
      symlinkSync(stamp, join(directory, '..data_tmp'));
      renameSync(join(directory, '..data_tmp'), join(directory, '..data'));
    };
    swap('..2026_01', helperFiles('/web'));
    for (const name of ['svid.pem', 'svid_key.pem', 'svid_bundle.pem']) symlinkSync(join('..data', name), join(directory, name));
    const { source, look, told } = follow(directory);
    await source.ready();
    expect(source.svid.id.path).toBe('/web');
    swap('..2026_02', helperFiles('/admin'));
    rmSync(join(directory, '..2026_01'), { recursive: true });
    await look();
    expect([source.svid.id.path, told]).toEqual(['/admin', []]);
  });
});

describe('bad files never take the place of good ones, and are told once', () => {
  const faults: readonly [what: string, spoil: (directory: string, write: (texts: Texts) => void) => void, error: object][] = [
    [
      'a new certificate beside the old key',
      (_, write) => write({ 'svid.pem': helperFiles('/x')['svid.pem'] ?? '' }),
      { reason: 'KEY_MISMATCH' },
    ],
    [
      'a new key beside the old certificate',
      (_, write) => write({ 'svid_key.pem': helperFiles('/x')['svid_key.pem'] ?? '' }),
      { reason: 'KEY_MISMATCH' },
    ],
    ['half a certificate', (directory) => truncateSync(join(directory, 'svid.pem'), 300), { reason: 'PEM_MALFORMED' }],
    ['an empty key', (directory) => truncateSync(join(directory, 'svid_key.pem')), { reason: 'PEM_MISSING' }],
    [
      'an empty bundle',
      (directory) => truncateSync(join(directory, 'svid_bundle.pem')),
      { code: 'BUNDLE_INVALID', reason: 'X509_BUNDLE_EMPTY' },
    ],
    [
      'half a bundle',
      (directory) => truncateSync(join(directory, 'svid_bundle.pem'), 300),
      { code: 'BUNDLE_INVALID', reason: 'PEM_MALFORMED' },
    ],
    ['garbage', (_, write) => write({ 'svid.pem': 'garbage' }), { code: 'SVID_INVALID', reason: 'PEM_MISSING' }],
    ['a certificate that is a CA', (_, write) => write(caFiles()), { reason: 'X509_LEAF_CA' }],
    ['a file that is gone', (directory) => unlinkSync(join(directory, 'svid_key.pem')), { code: 'ENOENT' }],
    [
      'a folder in its place',
      (directory) => (unlinkSync(join(directory, 'svid.pem')), mkdirSync(join(directory, 'svid.pem'))),
      { code: 'REQUEST_INVALID' },
    ],
    [
      'a file that is far too large',
      (directory) => truncateSync(join(directory, 'svid_bundle.pem'), 17 * 1024 * 1024),
      { reason: 'BUNDLE_TOO_LARGE' },
    ],
  ];
  for (const [what, spoil, error] of faults) {
    test(what, async () => {
      const { directory, write } = folder(helperFiles('/web'));
      const { source, look, told } = follow(directory);
      await source.ready();
      const before = source.svid;
      spoil(directory, write);
      await look();
      await look();
      expect(source.svid).toBe(before);
      expect(source.x509Bundle(domain.trustDomain)?.equals(domain.bundle.x509)).toBe(true);
      expect(told).toHaveLength(1);
      expect(told[0]).toMatchObject(error);
      rmSync(join(directory, 'svid.pem'), { recursive: true });
      write(helperFiles('/after'));
      await look();
      expect(source.svid.id.path).toBe('/after');
    });
  }

  test("a federated file that is bad, or of our own trust domain, or another's document", async () => {
    for (const [name, text, error] of [
      ['far.pem', 'garbage', { code: 'BUNDLE_INVALID' }],
      ['far.json', '{"keys":[]}', { code: 'BUNDLE_INVALID', reason: 'X509_BUNDLE_EMPTY' }],
    ] as const) {
      const { directory, write } = folder(helperFiles('/web'));
      write({ [name]: text });
      const { source, look, told } = follow(directory, { federated: new Map([[far.trustDomain, name]]) });
      await look();
      expect(told).toMatchObject([error]);
      expect(refusal(() => source.svid)).toMatchObject({ code: error.code });
    }
    const { directory, write } = folder(helperFiles('/web'));
    write({ 'own.pem': far.bundle.x509.toPem() });
    const { source, look } = follow(directory, { federated: new Map([[domain.trustDomain, 'own.pem']]) });
    await look();
    expect(source.waitingFor).toMatch(/two bundles of example\.org/);
  });

  test('a pipe is not waited for', async () => {
    const { directory } = folder(helperFiles('/web'));
    unlinkSync(join(directory, 'svid_key.pem'));
    execFileSync('mkfifo', [join(directory, 'svid_key.pem')]);
    const { source, look, told } = follow(directory);
    await look();
    expect(told).toMatchObject([{ code: 'REQUEST_INVALID', message: expect.stringContaining('is no file') }]);
    await source.close();
  });
});

test('an SVID that has expired is not given', async () => {
  const { directory } = folder(helperFiles('/web'));
  const { source, clock: own } = follow(directory);
  await source.ready();
  own.jump(2 * 3_600_000);
  expect(refusal(() => source.svid)).toMatchObject({ code: 'SVID_EXPIRED' });
});

test('a closed source throws CLOSED, also to who waits, and looks no more', async () => {
  const { directory } = folder();
  const { source, clock: own } = follow(directory);
  const waits = failure(source.ready());
  await source.close();
  expect(await waits).toMatchObject({ code: 'CLOSED' });
  for (const use of [() => source.svid, () => source.x509Bundle(domain.trustDomain)])
    expect(refusal(use)).toMatchObject({ code: 'CLOSED' });
  expect(own.waiting).toBe(0);
});

function caFiles(): Texts {
  const { certificatesPem, keyPem } = domain.rawSvid('/web', { ca: true });
  return { 'svid.pem': certificatesPem, 'svid_key.pem': keyPem };
}
