import { constants, createHash, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Log, silent } from '../../../core/log.ts';
import { agentX509pop } from '../../../plugins/node-attestor/x509pop/agent.ts';
import { checkAnswer } from '../../../plugins/node-attestor/x509pop/proof.ts';
import { serverX509pop } from '../../../plugins/node-attestor/x509pop/server.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { Latest } from '../../../spiffe/latest.ts';
import { readSpki } from '../../../spiffe/x509/spki.ts';
import { NOW_MS, type TestCertificate, type TestCertificateOptions, testCertificate, testRoot, x509 } from '../../fakes/ca.ts';
import { FakeClock } from '../../fakes/clock.ts';

const HOUR = 3_600_000;
const trustDomain = TrustDomain.parse('example.org');
const never = new AbortController().signal;
const folder = mkdtempSync(join(tmpdir(), 'x509pop-'));
afterAll(() => rmSync(folder, { recursive: true }));

let files = 0;
function file(...contents: string[]): string {
  const path = join(folder, `${++files}.pem`);
  writeFileSync(path, contents.join(''), { mode: 0o600 });
  return path;
}

const keyPem = ({ key }: TestCertificate) => String(key.export({ type: 'pkcs8', format: 'pem' }));
const fingerprint = ({ der }: TestCertificate) => createHash('sha1').update(der).digest('hex');
const serial = ({ der }: TestCertificate) => new x509.X509Certificate(der).serialNumber;

interface Told {
  readonly level: 'error' | 'warn' | 'info';
  readonly message: string;
}

/** A host whose log and wishes to read again a test can see and make. */
function lend() {
  const told = new Latest<readonly Told[]>([]);
  const tell = (one: Told) => told.set([...told.value, one]);
  const stop = new AbortController();
  const log: Log = {
    ...silent,
    error: (message) => tell({ level: 'error', message }),
    warn: (message) => tell({ level: 'warn', message }),
    info: (message) => tell({ level: 'info', message }),
  };
  return { trustDomain, log, clock: new FakeClock(NOW_MS), signal: stop.signal, reloads: new Latest(0), told, stop };
}

async function server(settings: object, host = lend()) {
  const attestor = await serverX509pop.start(serverX509pop.settings.parse(settings), host);
  return (payload: Buffer, answer: (question: Buffer) => Promise<Buffer>, peerAddress = '192.0.2.1') =>
    attestor.attest({ trustDomain, payload, csrSha256: Buffer.alloc(32), publicKeySha256: Buffer.alloc(32), peerAddress }, answer, never);
}

const agent = (settings: object, host = lend()) => agentX509pop.start(agentX509pop.settings.parse(settings), host);

/** Our agent with a certificate, against our server with its roots. */
async function meet(
  node: TestCertificate,
  { more = [], ...settings }: { readonly [key: string]: unknown; readonly more?: readonly TestCertificate[] },
) {
  const side = await agent({ private_key_path: file(keyPem(node)), certificate_path: file(node.pem, ...more.map((one) => one.pem)) });
  const attest = await server(settings);
  return attest(await side.payload(never), (question) => side.answer(question, never));
}

/** The payload of a node that plays by its own rules. */
const payloadOf = (...chain: readonly TestCertificate[]) =>
  Buffer.from(JSON.stringify({ certificates: chain.map((one) => one.der.toString('base64')) }));

interface Answer {
  readonly nonce: Buffer;
  readonly both: Buffer;
}

/** An EC answer made by hand, from what `change` gives. */
function answerEc(key: KeyObject, change: (answer: Answer) => { readonly nonce?: Buffer; readonly signed?: Buffer } = () => ({})) {
  return async (question: Buffer) => {
    const theirs = Buffer.from((JSON.parse(String(question)) as { ecdsa_signature: { nonce: string } }).ecdsa_signature.nonce, 'base64');
    const nonce = Buffer.alloc(32, 7);
    const changed = change({ nonce, both: Buffer.concat([theirs, nonce]) });
    const rs = sign('sha256', changed.signed ?? Buffer.concat([theirs, changed.nonce ?? nonce]), { key, dsaEncoding: 'ieee-p1363' });
    const [r, s] = [rs.subarray(0, rs.length / 2), rs.subarray(rs.length / 2)];
    return ecAnswer({ nonce: changed.nonce ?? nonce, r, s });
  };
}

const ecAnswer = (members: Readonly<Record<string, Buffer>>) =>
  Buffer.from(
    JSON.stringify({
      rsa_signature: null,
      ecdsa_signature: Object.fromEntries(Object.entries(members).map(([k, v]) => [k, v.toString('base64')])),
    }),
  );

let root: TestCertificate;
let stranger: TestCertificate;
let rootFile: string;
/** A plain node. */
let node: TestCertificate;
let intermediate: TestCertificate;
beforeAll(async () => {
  root = await testRoot({ subject: 'CN=nodes root', uris: [] });
  // the same name, another key
  stranger = await testRoot({ subject: 'CN=nodes root', uris: [] });
  rootFile = file(root.pem);
  node = await nodeOf(root);
  intermediate = await testRoot({ issuer: root, subject: 'CN=nodes intermediate', uris: [] });
});

const nodeOf = (issuer: TestCertificate, options: TestCertificateOptions = {}) =>
  testCertificate({ issuer, subject: 'CN=node-1.example.org, O=Acme', uris: [], purposes: null, ...options });

describe('a node that holds the key of a certificate', () => {
  for (const keyType of ['ec-p256', 'ec-p384', 'ec-p521', 'rsa-2048'] as const) {
    test(`of ${keyType} is attested, by SHA-1 of its certificate, and may attest again`, async () => {
      const one = await nodeOf(root, { keyType });
      const attestation = await meet(one, { ca_bundle_path: rootFile });
      expect(attestation).toEqual({
        agentPath: `/spire/agent/x509pop/${fingerprint(one)}`,
        selectors: ['subject:cn:node-1.example.org', `ca:fingerprint:${fingerprint(root)}`, `serialnumber:${serial(one)}`],
        canReattest: true,
      });
      expect(await meet(one, { ca_bundle_paths: [file(stranger.pem), rootFile] })).toEqual(attestation);
    });
  }

  test('is attested through its intermediates, from one file or two, and has the fingerprint of each authority', async () => {
    const one = await nodeOf(intermediate);
    const expected = [`ca:fingerprint:${fingerprint(intermediate)}`, `ca:fingerprint:${fingerprint(root)}`];
    const { selectors } = await meet(one, { ca_bundle_path: rootFile, more: [intermediate] });
    expect(selectors.slice(1, 3)).toEqual(expected);
    const side = await agent({
      private_key_path: file(keyPem(one)),
      certificate_path: file(one.pem),
      intermediates_path: file(intermediate.pem),
    });
    const attest = await server({ ca_bundle_path: rootFile });
    expect((await attest(await side.payload(never), (question) => side.answer(question, never))).selectors).toEqual(selectors);
    await expect(meet(one, { ca_bundle_path: rootFile })).rejects.toMatchObject({ code: 'DENIED', reason: 'X509_ISSUER_UNKNOWN' });
  });

  test('has the fingerprints of all its paths, whichever is found first', async () => {
    const renewed = await testRoot({ subject: root.subject, keys: root.keys, uris: [], notAfterMs: NOW_MS + 5 * HOUR });
    const other = await testRoot({ subject: 'CN=other root', uris: [] });
    const crossed = await testRoot({ issuer: other, subject: root.subject, keys: root.keys, uris: [] });
    const unused = await testRoot({ issuer: root, subject: 'CN=unused', uris: [] });
    const { selectors } = await meet(node, {
      ca_bundle_path: file(root.pem, renewed.pem, other.pem, stranger.pem),
      more: [crossed, unused],
    });
    const fingerprints = selectors.filter((one) => one.startsWith('ca:fingerprint:'));
    expect(fingerprints.toSorted()).toEqual([root, renewed, crossed, other].map((one) => `ca:fingerprint:${fingerprint(one)}`).sort());
  });

  test('has a selector for each URI of ours with a key and a value, of which the last of a key wins', async () => {
    const uris = [
      'x509pop://example.org/datacenter/us-east-1',
      'X509POP://example.org/rack/a/7',
      'x509pop://example.org/env/test',
      'x509pop://example.org//env/prod%2Feu/',
      'x509pop://example.org/alone',
      'x509pop://example.org/bad/%zz',
      'x509pop://example.org/',
      'x509pop://other.org/env/other',
      'x509pop://user@example.org/env/user',
      'spiffe://example.org/env/spiffe',
      'x509pop://example.org/query/yes?no#never',
    ];
    const host = lend();
    const one = await nodeOf(root, { uris });
    const attest = await server(
      { ca_bundle_path: rootFile, agent_path_template: '/{{ .PluginName }}/{{ .URISanSelectors.datacenter }}' },
      host,
    );
    const { selectors, agentPath } = await attest(payloadOf(one), answerEc(one.key));
    expect(selectors.filter((selector) => selector.startsWith('san:'))).toEqual([
      'san:datacenter:us-east-1',
      'san:rack:a/7',
      'san:env:prod/eu',
      'san:query:yes',
    ]);
    expect(agentPath).toBe('/spire/agent/x509pop/us-east-1');
    expect(host.told.value.filter(({ level }) => level === 'warn')).toHaveLength(3);
  });

  test('without a common name has no selector for it; of several the last counts', async () => {
    expect((await meet(await nodeOf(root, { subject: 'O=Acme' }), { ca_bundle_path: rootFile })).selectors[0]).toMatch(/^ca:fingerprint:/);
    const two = await nodeOf(root, { subject: 'CN=first, CN=last' });
    expect((await meet(two, { ca_bundle_path: rootFile })).selectors[0]).toBe('subject:cn:last');
  });

  test('is named by the template, and refused when the template makes no path of it', async () => {
    const settings = {
      ca_bundle_path: rootFile,
      agent_path_template: '/x509pop/{{ index .Subject.Organization 0 | lower }}/{{ .Subject.CommonName }}',
    };
    expect((await meet(node, settings)).agentPath).toBe('/spire/agent/x509pop/acme/node-1.example.org');
    for (const subject of ['CN=a b, O=Acme', 'CN=.., O=Acme', 'O=Acme', 'CN=node-1']) {
      await expect(meet(await nodeOf(root, { subject }), settings)).rejects.toMatchObject({
        code: 'DENIED',
        message: expect.stringMatching(/^failed to make spiffe id: /),
      });
    }
  });
});

describe('a certificate is refused', () => {
  const refused: readonly (readonly [what: string, make: () => Promise<TestCertificate>, reason: string])[] = [
    ['of another authority of the same name', () => nodeOf(stranger, {}), 'X509_ISSUER_UNKNOWN'],
    ['of another authority of the same name, without key identifiers', () => nodeOf(stranger, { keyIdentifiers: false }), 'X509_SIGNATURE'],
    ['that has expired', () => nodeOf(root, { notBeforeMs: NOW_MS - 2 * HOUR, notAfterMs: NOW_MS - HOUR }), 'X509_EXPIRED'],
    ['that is not valid yet', () => nodeOf(root, { notBeforeMs: NOW_MS + HOUR, notAfterMs: NOW_MS + 2 * HOUR }), 'X509_NOT_YET_VALID'],
    ['that signed itself', () => testCertificate({ subject: 'CN=nodes root', uris: [] }), 'X509_ISSUER_UNKNOWN'],
    ['that another node signed', async () => nodeOf(node), 'X509_ISSUER_UNKNOWN'],
    [
      'with a critical extension that nobody knows',
      () => nodeOf(root, { extensions: [new x509.Extension('1.2.3.4', true, Buffer.from([5, 0]))] }),
      'X509_UNKNOWN_CRITICAL',
    ],
  ];
  for (const [what, make, reason] of refused) {
    test(`${what}, before anything is asked`, async () => {
      const one = await make();
      const attest = await server({ ca_bundle_path: rootFile });
      let asked = 0;
      const answer = async (question: Buffer) => {
        asked++;
        return answerEc(one.key)(question);
      };
      await expect(attest(payloadOf(one), answer)).rejects.toMatchObject({
        code: 'DENIED',
        reason,
        message: expect.stringMatching(/^certificate verification failed: /),
      });
      expect(asked).toBe(0);
      await attest(payloadOf(node), answerEc(node.key));
    });
  }

  test('below an intermediate that is no CA, or that the node made up', async () => {
    const attest = await server({ ca_bundle_path: rootFile });
    const below = await nodeOf(node);
    await expect(attest(payloadOf(below, node), answerEc(below.key))).rejects.toMatchObject({ reason: 'X509_AUTHORITY_CA' });
    const made = await testRoot({ issuer: stranger, subject: 'CN=nodes intermediate', uris: [] });
    const belowMade = await nodeOf(made);
    await expect(attest(payloadOf(belowMade, made), answerEc(belowMade.key))).rejects.toMatchObject({ code: 'DENIED' });
    await expect(attest(payloadOf(belowMade, made, stranger), answerEc(belowMade.key))).rejects.toMatchObject({ code: 'DENIED' });
    const good = await nodeOf(intermediate);
    await attest(payloadOf(good, intermediate, stranger), answerEc(good.key));
  });

  for (const usages of [['keyEncipherment'], null] as const) {
    test(`whose key usage is ${usages?.join() ?? 'not there'}: it is not for digital signatures`, async () => {
      const one = await nodeOf(root, { usages });
      const attest = await server({ ca_bundle_path: rootFile });
      await expect(attest(payloadOf(one), answerEc(one.key))).rejects.toMatchObject({
        code: 'DENIED',
        message: 'unable to generate challenge: certificate not intended for digital signature use',
      });
      await expect(agent({ private_key_path: file(keyPem(one)), certificate_path: file(one.pem) })).rejects.toMatchObject({
        code: 'SETTINGS_INVALID',
        message: expect.stringMatching(/digitalSignature/),
      });
    });
  }

  test('whose key cannot be asked', async () => {
    const one = await nodeOf(root, { keyType: 'ed25519' });
    const attest = await server({ ca_bundle_path: rootFile });
    await expect(attest(payloadOf(one), answerEc(node.key))).rejects.toMatchObject({
      code: 'DENIED',
      message: 'unable to generate challenge: unsupported public key type Ed25519',
    });
  });

  test('with more intermediates than allowed, before one is read, or with an RSA key that is too large', async () => {
    const attest = await server({ ca_bundle_path: rootFile });
    const many = (count: number) => payloadOf(node, ...Array.from({ length: count }, () => intermediate));
    await attest(many(4), answerEc(node.key));
    await expect(attest(many(5), answerEc(node.key))).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
      message: expect.stringMatching(/^too many intermediate certificates/),
    });
    const rsa = await nodeOf(root, { keyType: 'rsa-2048' });
    await meet(rsa, { ca_bundle_path: rootFile, max_rsa_key_size: 2048 });
    await expect(meet(rsa, { ca_bundle_path: rootFile, max_rsa_key_size: 2047 })).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
      message: 'leaf certificate key size too large',
    });
    const more = { ca_bundle_path: rootFile, max_rsa_key_size: 2047, more: [rsa] };
    await expect(meet(node, more)).rejects.toMatchObject({ message: 'intermediate certificate 0 key size too large' });
  });

  test('whose IP names do not hold the address of the connection, if that is asked for', async () => {
    const names = new x509.SubjectAlternativeNameExtension([
      { type: 'ip', value: '192.0.2.1' },
      { type: 'ip', value: '2001:db8::1' },
      { type: 'dns', value: '198.51.100.1' },
    ]);
    const one = await nodeOf(root, { extensions: [names] });
    const attest = await server({ ca_bundle_path: rootFile, verify_client_ip: true });
    for (const address of ['192.0.2.1', '::ffff:192.0.2.1', '2001:db8::1', '2001:db8:0:0::1'])
      await attest(payloadOf(one), answerEc(one.key), address);
    for (const address of ['192.0.2.2', '198.51.100.1', '2001:db8::2', '', 'node-1.example.org', '192.0.2.1 ', '::ffff:198.51.100.1']) {
      await expect(attest(payloadOf(one), answerEc(one.key), address)).rejects.toMatchObject({
        code: 'DENIED',
        message: expect.stringMatching(/does not match any certificate IP SAN$/),
      });
    }
    await expect(attest(payloadOf(node), answerEc(node.key))).rejects.toMatchObject({ code: 'DENIED' });
    await (await server({ ca_bundle_path: rootFile }))(payloadOf(one), answerEc(one.key), '198.51.100.9');
  });
});

describe('a proof is refused', () => {
  const denied = { code: 'DENIED', message: 'challenge response verification failed: ECDSA signature verify failed' };
  const attestNode = async (answer: (question: Buffer) => Promise<Buffer>) =>
    (await server({ ca_bundle_path: rootFile }))(payloadOf(node), answer);

  test('by another key', async () => {
    await attestNode(answerEc(node.key));
    await expect(attestNode(answerEc(stranger.key))).rejects.toMatchObject(denied);
    const rsa = await nodeOf(root, { keyType: 'rsa-2048' });
    const other = await nodeOf(root, { keyType: 'rsa-2048' });
    const side = await agent({ private_key_path: file(keyPem(other)), certificate_path: file(other.pem) });
    const attest = await server({ ca_bundle_path: rootFile });
    const answer = (question: Buffer) => side.answer(question, never);
    await expect(attest(payloadOf(rsa), answer)).rejects.toMatchObject({
      code: 'DENIED',
      message: 'challenge response verification failed: RSA signature verify failed',
    });
    await attest(payloadOf(other), answer);
  });

  test('when it was recorded: every question is new', async () => {
    const questions: string[] = [];
    let recorded = Buffer.alloc(0);
    await attestNode(async (question) => {
      questions.push(String(question));
      recorded = await answerEc(node.key)(question);
      return recorded;
    });
    await expect(
      attestNode(async (question) => {
        questions.push(String(question));
        return recorded;
      }),
    ).rejects.toMatchObject(denied);
    expect(new Set(questions).size).toBe(2);
  });

  test('over anything but both nonces in their order', async () => {
    await expect(attestNode(answerEc(node.key, ({ both }) => ({ signed: both.subarray(0, 32) })))).rejects.toMatchObject(denied);
    await expect(attestNode(answerEc(node.key, ({ both }) => ({ signed: both.subarray(32) })))).rejects.toMatchObject(denied);
    await expect(
      attestNode(answerEc(node.key, ({ both }) => ({ signed: Buffer.concat([both.subarray(32), both.subarray(0, 32)]) }))),
    ).rejects.toMatchObject(denied);
    await attestNode(answerEc(node.key, ({ both }) => ({ signed: both })));
  });

  test('with a nonce of the node that is not 32 bytes', async () => {
    for (const length of [0, 31, 33, 64]) {
      await expect(attestNode(answerEc(node.key, () => ({ nonce: Buffer.alloc(length) })))).rejects.toMatchObject({
        code: 'REQUEST_INVALID',
        message: `unable to unmarshal challenge response: invalid response nonce: ${length} bytes instead of 32`,
      });
    }
    await attestNode(answerEc(node.key, () => ({ nonce: Buffer.alloc(32) })));
  });

  const nonce = Buffer.alloc(32);
  const order = Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551', 'hex');
  for (const [what, r, s] of [
    ['zeros', Buffer.alloc(32), Buffer.alloc(32)],
    ['nothing', Buffer.alloc(0), Buffer.alloc(0)],
    ['the order of the curve', order, order],
    ['too many octets', Buffer.alloc(33, 1), Buffer.alloc(33, 1)],
  ] as const) {
    test(`of ${what}`, () => expect(attestNode(async () => ecAnswer({ nonce, r, s }))).rejects.toMatchObject(denied));
  }

  for (const [what, answer] of [
    ['nothing', ''],
    ['no JSON', '{'],
    ['JSON that is no object', '[]'],
    ['null', 'null'],
    ['no member', '{}'],
    ['nulls', '{"rsa_signature":null,"ecdsa_signature":null}'],
    ['the other form', '{"rsa_signature":{"nonce":"","signature":""},"ecdsa_signature":null}'],
    ['a member twice', '{"ecdsa_signature":null,"ecdsa_signature":{}}'],
    ['no nonce', '{"ecdsa_signature":{"r":"AQ==","s":"AQ=="}}'],
    ['a nonce that is a number', '{"ecdsa_signature":{"nonce":5,"r":"AQ==","s":"AQ=="}}'],
    ['a nonce that is no Base64', `{"ecdsa_signature":{"nonce":"${'!'.repeat(44)}","r":"AQ==","s":"AQ=="}}`],
    ['no r', `{"ecdsa_signature":{"nonce":"${nonce.toString('base64')}","s":"AQ=="}}`],
    ['Base64 without its padding', `{"ecdsa_signature":{"nonce":"${nonce.toString('base64')}","r":"AQ","s":"AQ=="}}`],
    ['too much', `{"ecdsa_signature":{"nonce":"${'A'.repeat(17_000)}"}}`],
  ] as const) {
    test(`that is malformed: ${what}`, () =>
      expect(attestNode(async () => Buffer.from(answer))).rejects.toMatchObject({
        code: 'REQUEST_INVALID',
        message: expect.stringMatching(/^unable to unmarshal challenge response: /),
      }));
  }

  test('of RSA with the padding of PKCS #1 v1.5', async () => {
    const rsa = await nodeOf(root, { keyType: 'rsa-2048' });
    const attest = await server({ ca_bundle_path: rootFile });
    const answer = (padding: number) => async (question: Buffer) => {
      const theirs = Buffer.from((JSON.parse(String(question)) as { rsa_signature: { nonce: string } }).rsa_signature.nonce, 'base64');
      const signature = sign('sha256', Buffer.concat([theirs, nonce]), { key: rsa.key, padding });
      return Buffer.from(JSON.stringify({ rsa_signature: { nonce: nonce.toString('base64'), signature: signature.toString('base64') } }));
    };
    await attest(payloadOf(rsa), answer(constants.RSA_PKCS1_PSS_PADDING));
    await expect(attest(payloadOf(rsa), answer(constants.RSA_PKCS1_PADDING))).rejects.toMatchObject({ code: 'DENIED' });
  });

  test('when the dialogue was stopped while the node was asked', async () => {
    const stop = new AbortController();
    const attestor = await serverX509pop.start(serverX509pop.settings.parse({ ca_bundle_path: rootFile }), lend());
    const request = {
      trustDomain,
      payload: payloadOf(node),
      csrSha256: Buffer.alloc(32),
      publicKeySha256: Buffer.alloc(32),
      peerAddress: '',
    };
    const attested = attestor.attest(
      request,
      async (question) => {
        stop.abort(new Error('too late'));
        return answerEc(node.key)(question);
      },
      stop.signal,
    );
    await expect(attested).rejects.toThrow('too late');
  });
});

test('whatever bytes a stranger sends as payload or answer, he is refused with a code', async () => {
  const attest = await server({ ca_bundle_path: rootFile });
  const coded = { code: expect.stringMatching(/^(REQUEST_INVALID|DENIED)$/) };
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.json().map((text) => Buffer.from(text)),
    cut(payloadOf(node)),
    bent(payloadOf(node)),
  );
  await fc.assert(
    fc.asyncProperty(bytes, async (payload) => {
      await expect(attest(Buffer.from(payload), async () => Buffer.alloc(0))).rejects.toMatchObject(coded);
    }),
    { numRuns: 300 },
  );
  const answers = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.json().map((text) => Buffer.from(text)),
  );
  await fc.assert(
    fc.asyncProperty(answers, async (answer) => {
      await expect(attest(payloadOf(node), async () => Buffer.from(answer))).rejects.toMatchObject(coded);
    }),
  );
});

/** A beginning of it. */
const cut = (whole: Buffer) => fc.integer({ min: 0, max: whole.length - 1 }).map((length) => whole.subarray(0, length));
/** The same with one octet of the certificate changed. */
const bent = (whole: Buffer) =>
  fc.tuple(fc.integer({ min: 0, max: whole.length - 1 }), fc.integer({ min: 1, max: 255 })).map(([at, by]) => {
    const copy = Buffer.from(whole);
    copy[at] = (copy[at] ?? 0) ^ by;
    return copy;
  });

describe('a payload is refused', () => {
  const base64 = () => node.der.toString('base64');
  for (const [what, payload, why] of [
    ['nothing', () => '', /^failed to unmarshal data: /],
    ['no JSON', () => 'hello', /^failed to unmarshal data: /],
    ['no object', () => '[]', /^failed to unmarshal data: /],
    ['no list', () => `{"certificates":"${base64()}"}`, /^failed to unmarshal data: certificates is not a list/],
    ['no Base64', () => '{"certificates":["-"]}', /^failed to unmarshal data: certificates is not Base64/],
    ['no member', () => '{}', /^no certificate to attest$/],
    ['null', () => '{"certificates":null}', /^no certificate to attest$/],
    ['an empty list', () => '{"certificates":[]}', /^no certificate to attest$/],
    ['no DER', () => '{"certificates":["aGVsbG8="]}', /^unable to parse leaf certificate: /],
    [
      'bytes behind the certificate',
      () => JSON.stringify({ certificates: [Buffer.concat([node.der, Buffer.from([0])]).toString('base64')] }),
      /^unable to parse leaf certificate: /,
    ],
    [
      'an intermediate that is no DER',
      () => `{"certificates":["${base64()}","aGVsbG8="]}`,
      /^unable to parse intermediate certificate 0: /,
    ],
    ['too much', () => `{"certificates":["${'A'.repeat(2_000_000)}"]}`, /^failed to unmarshal data: /],
  ] as const) {
    test(`with ${what}`, async () => {
      const attest = await server({ ca_bundle_path: rootFile });
      await expect(attest(Buffer.from(payload()), answerEc(node.key))).rejects.toMatchObject({
        code: 'REQUEST_INVALID',
        message: expect.stringMatching(why),
      });
    });
  }

  test('and a member that a later version may bring is left alone', async () => {
    const attest = await server({ ca_bundle_path: rootFile });
    await attest(Buffer.from(`{"certificates":["${base64()}"],"later":1}`), answerEc(node.key));
  });
});

describe('the wire is that of SPIRE', () => {
  interface Vector {
    readonly spki: string;
    readonly challenge: string;
    readonly response: string;
  }
  const vectors = JSON.parse(readFileSync(join(import.meta.dirname, '../../vectors/x509pop.json'), 'utf8')) as readonly Vector[];
  for (const { spki, challenge, response } of vectors) {
    const { kind, der } = readSpki(Buffer.from(spki, 'base64'));
    const asked = JSON.parse(challenge) as Record<string, { nonce: string } | null>;
    const nonce = Buffer.from((asked['rsa_signature'] ?? asked['ecdsa_signature'])?.nonce ?? '', 'base64');
    test(`an answer of its agent with a key of ${JSON.stringify(kind)} is good, and to another question it is not`, () => {
      const key = createPublicKey({ key: der, format: 'der', type: 'spki' });
      checkAnswer(Buffer.from(response), { nonce, message: Buffer.from(challenge) }, key, kind);
      const another = Buffer.from(nonce);
      another[0] = (another[0] ?? 0) ^ 1;
      expect(() => checkAnswer(Buffer.from(response), { nonce: another, message: Buffer.from(challenge) }, key, kind)).toThrow(
        /verify failed/,
      );
    });
  }

  test('payload, question and answer are written as Go writes them', async () => {
    const side = await agent({ private_key_path: file(keyPem(node)), certificate_path: file(node.pem) });
    const attest = await server({ ca_bundle_path: rootFile });
    const payload = await side.payload(never);
    expect(String(payload)).toBe(`{"certificates":["${node.der.toString('base64')}"]}`);
    await attest(payload, async (question) => {
      expect(String(question)).toMatch(/^\{"rsa_signature":null,"ecdsa_signature":\{"nonce":"[A-Za-z0-9+/]{43}="\}\}$/);
      const answer = await side.answer(question, never);
      expect(String(answer)).toMatch(
        /^\{"rsa_signature":null,"ecdsa_signature":\{"nonce":"[A-Za-z0-9+/]{43}=","r":"[^"]+","s":"[^"]+"\}\}$/,
      );
      return answer;
    });
  });
});

describe('the agent', () => {
  test('shows what is in its files at each attestation, and answers with the key of what it showed', async () => {
    const [cert, key] = [file(node.pem), file(keyPem(node))];
    const side = await agent({ private_key_path: key, certificate_path: cert });
    const attest = await server({ ca_bundle_path: rootFile });
    const renewed = await nodeOf(root);
    const first = await attest(await side.payload(never), (question) => {
      writeFileSync(cert, renewed.pem);
      writeFileSync(key, keyPem(renewed));
      return side.answer(question, never);
    });
    expect(first.agentPath).toBe(`/spire/agent/x509pop/${fingerprint(node)}`);
    const second = await attest(await side.payload(never), (question) => side.answer(question, never));
    expect(second.agentPath).toBe(`/spire/agent/x509pop/${fingerprint(renewed)}`);
    writeFileSync(cert, node.pem);
    await expect(side.payload(never)).rejects.toMatchObject({ code: 'SETTINGS_INVALID', message: expect.stringMatching(/does not match/) });
  });

  test('does not start with files that cannot serve', async () => {
    const good = { private_key_path: file(keyPem(node)), certificate_path: file(node.pem) };
    await agent(good);
    for (const bad of [
      { private_key_path: file(keyPem(stranger)) },
      { private_key_path: file('') },
      { private_key_path: join(folder, 'nowhere') },
      { certificate_path: file('') },
      { certificate_path: file('-----BEGIN CERTIFICATE-----\n') },
      { certificate_path: join(folder, 'nowhere') },
      { intermediates_path: file('') },
      { intermediates_path: file(...Array.from({ length: 8 }, () => intermediate.pem)) },
    ])
      await expect(agent({ ...good, ...bad })).rejects.toMatchObject({ code: 'SETTINGS_INVALID' });
  });

  test('warns of a key that others can read', async () => {
    const [open, closed] = [lend(), lend()];
    const path = join(folder, 'open.pem');
    writeFileSync(path, keyPem(node), { mode: 0o644 });
    await agent({ private_key_path: path, certificate_path: file(node.pem) }, open);
    await agent({ private_key_path: file(keyPem(node)), certificate_path: file(node.pem) }, closed);
    expect(open.told.value.map(({ level }) => level)).toEqual(['warn']);
    expect(closed.told.value).toEqual([]);
  });

  test('refuses a question that it cannot answer', async () => {
    const side = await agent({ private_key_path: file(keyPem(node)), certificate_path: file(node.pem) });
    const question = (nonce: string) => Buffer.from(`{"rsa_signature":null,"ecdsa_signature":{"nonce":"${nonce}"}}`);
    await side.answer(question(Buffer.alloc(32).toString('base64')), never);
    for (const bad of [
      question(Buffer.alloc(31).toString('base64')),
      question(Buffer.alloc(33).toString('base64')),
      question('?'),
      Buffer.from(`{"rsa_signature":{"nonce":"${Buffer.alloc(32).toString('base64')}"}}`),
      Buffer.from('{}'),
      Buffer.alloc(0),
    ])
      await expect(side.answer(bad, never)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });
});

describe('the CA files', () => {
  const wait = async (told: Latest<readonly Told[]>, level: Told['level']) => {
    for await (const all of told.changes(never)) if (all.some((one) => one.level === level)) return;
  };

  test('are read again when the operator asks for it', async () => {
    const host = lend();
    const path = file(stranger.pem);
    const attest = await server({ ca_bundle_path: path }, host);
    await expect(attest(payloadOf(node), answerEc(node.key))).rejects.toMatchObject({ code: 'DENIED' });
    writeFileSync(path, root.pem);
    await expect(attest(payloadOf(node), answerEc(node.key))).rejects.toMatchObject({ code: 'DENIED' });
    host.reloads.set(1);
    await wait(host.told, 'info');
    await attest(payloadOf(node), answerEc(node.key));
    host.stop.abort();
  });

  for (const [what, bad] of [
    ['nothing', ''],
    ['half a certificate', '-----BEGIN CERTIFICATE-----\n'],
  ] as const) {
    test(`with ${what} keep what was trusted before, and say so`, async () => {
      const host = lend();
      const path = file(root.pem);
      const attest = await server({ ca_bundle_path: path }, host);
      writeFileSync(path, bad);
      host.reloads.set(1);
      await wait(host.told, 'error');
      await attest(payloadOf(node), answerEc(node.key));
      await expect(server({ ca_bundle_path: path })).rejects.toMatchObject({ code: 'SETTINGS_INVALID' });
      writeFileSync(path, stranger.pem);
      host.reloads.set(2);
      await wait(host.told, 'info');
      await expect(attest(payloadOf(node), answerEc(node.key))).rejects.toMatchObject({ code: 'DENIED' });
      host.stop.abort();
    });
  }

  test('must hold the certificate of a CA', async () => {
    await expect(server({ ca_bundle_path: file(node.pem) })).rejects.toMatchObject({
      code: 'SETTINGS_INVALID',
      message: expect.stringMatching(/is a CA's/),
    });
    await server({ ca_bundle_path: file(node.pem, root.pem) });
    await expect(server({ ca_bundle_paths: [rootFile, join(folder, 'nowhere')] })).rejects.toMatchObject({ code: 'SETTINGS_INVALID' });
  });
});

describe('settings', () => {
  const faults = (settings: object) => serverX509pop.settings.safeParse(settings).error?.issues.map(({ message }) => message) ?? [];
  test('need the CA files once', () => {
    expect(faults({ ca_bundle_path: 'a' })).toEqual([]);
    expect(faults({ ca_bundle_paths: ['a', 'b'] })).toEqual([]);
    expect(faults({ mode: 'external_pki', ca_bundle_path: 'a' })).toEqual([]);
    expect(faults({})).toEqual(['one of ca_bundle_path or ca_bundle_paths must be configured']);
    expect(faults({ ca_bundle_paths: [] })).toEqual(['one of ca_bundle_path or ca_bundle_paths must be configured']);
    expect(faults({ ca_bundle_path: 'a', ca_bundle_paths: ['b'] })).toEqual([
      'only one of ca_bundle_path or ca_bundle_paths can be configured, not both',
    ]);
  });

  test('that are not ours, or out of bounds, are refused', () => {
    for (const bad of [
      { mode: 'spiffe' },
      { mode: 'other' },
      { svid_prefix: '/x' },
      { spiffe_prefix: '/x' },
      { max_intermediates: 0 },
      { max_intermediates: 8 },
      { max_rsa_key_size: 0 },
      { max_rsa_key_size: 8193 },
      { verify_client_ip: 'yes' },
      { ca_bundle: 'a' },
      { agent_path_template: '/x509pop/{{ .SVIDPathTrimmed }}' },
      { agent_path_template: '/x509pop/{{ if true }}' },
    ])
      expect(faults({ ca_bundle_path: 'a', ...bad }), JSON.stringify(bad)).not.toEqual([]);
    for (const good of [
      { max_intermediates: 7 },
      { max_rsa_key_size: 4096 },
      { verify_client_ip: true },
      { agent_path_template: '/{{ .PluginName }}/{{ .SerialNumber }}' },
    ])
      expect(faults({ ca_bundle_path: 'a', ...good })).toEqual([]);
    expect(agentX509pop.settings.safeParse({ private_key_path: 'a', certificate_path: 'b' }).success).toBe(true);
    for (const bad of [
      {},
      { private_key_path: 'a' },
      { private_key_path: 'a', certificate_path: 'b', spiffe_endpoint_socket: 'unix:///x' },
    ])
      expect(agentX509pop.settings.safeParse(bad).success).toBe(false);
  });

  test('with a template that leads out of the namespace of this attestor are refused, with the way in', () => {
    const template = (agent_path_template: string) => faults({ ca_bundle_path: 'a', agent_path_template });
    for (const good of ['/x509pop/{{ .Fingerprint }}', '/{{ .PluginName }}/x/{{ .Fingerprint }}', '/{{ .PluginName | lower }}/x'])
      expect(template(good)).toEqual([]);
    for (const bad of [
      '/cn/{{ .Subject.CommonName }}',
      '{{ .PluginName }}/{{ .Fingerprint }}',
      '/join_token/{{ .Fingerprint }}',
      '/{{ .PluginName }}',
      '/x509pop',
      '/x509pop2/{{ .Fingerprint }}',
    ])
      expect(template(bad)).toEqual([expect.stringMatching(/they must begin with \/spire\/agent\/x509pop\//)]);
  });
});
