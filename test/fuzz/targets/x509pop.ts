/** x509pop: what a node sends first, and how it answers; nobody is attested whose answer its key did not sign. The first octet says which of the two it is. */
import { constants, KeyObject, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silent } from '../../../core/log.ts';
import { serverX509pop } from '../../../plugins/node-attestor/x509pop/server.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { Latest } from '../../../spiffe/latest.ts';
import { FakeClock } from '../../fakes/clock.ts';
import { NOW_MS, testCertificate, testRoot } from '../../fakes/ca.ts';
import { mutateDer } from '../der.ts';
import { about, type Target, wrong } from '../fuzzer.ts';
import { jsonMutation } from '../json.ts';
import { type Mutation, PLAIN } from '../mutations.ts';

const trustDomain = TrustDomain.parse('example.org');

export default async function x509pop(): Promise<Target> {
  const root = await testRoot();
  const middle = await testCertificate({ issuer: root, ca: true, uris: [] });
  const leaves = [
    await testCertificate({
      issuer: middle,
      uris: ['x509pop://example.org/cluster/one', 'x509pop://example.org/a%2Fb/c'],
      subject: 'CN=node é',
    }),
    await testCertificate({ issuer: middle, keyType: 'rsa-2048', uris: [] }),
  ];
  const folder = mkdtempSync(join(tmpdir(), 'fuzz-x509pop-'));
  const roots = join(folder, 'roots.pem');
  writeFileSync(roots, root.pem);
  const attestor = await serverX509pop.start(serverX509pop.settings.parse({ ca_bundle_path: roots, verify_client_ip: false }), {
    trustDomain,
    log: silent,
    clock: new FakeClock(NOW_MS),
    signal: new AbortController().signal,
    reloads: new Latest(0),
  });
  rmSync(folder, { recursive: true });
  const payloads = leaves.map((leaf) => JSON.stringify({ certificates: [leaf.der, middle.der].map((der) => der.toString('base64')) }));
  const never = new AbortController().signal;
  const anyJson = jsonMutation((random, old) => {
    const bytes = Buffer.from(old, 'base64');
    if (bytes[0] === 0x30 && random.oneIn(2)) return mutateDer(random, bytes, bytes).toString('base64');
    return random.pick(PLAIN)(random, bytes, bytes).toString('base64');
  });
  const ofItsKind: Mutation = (random, input, other) =>
    Buffer.concat([input.subarray(0, 1), anyJson(random, input.subarray(1), other.subarray(1))]);

  /** Right, if `change` lets it be. */
  const answer = (question: Buffer, key: KeyObject): { nonce: string; signature: string; r: string; s: string } => {
    const asked = JSON.parse(question.toString()) as Record<string, { nonce: string } | null>;
    const theirs = Buffer.from((asked['rsa_signature'] ?? asked['ecdsa_signature'])?.nonce ?? '', 'base64');
    const nonce = Buffer.alloc(32, 7);
    const both = Buffer.concat([theirs, nonce]);
    const rs = key.asymmetricKeyType === 'ec' ? sign('sha256', both, { key, dsaEncoding: 'ieee-p1363' }) : Buffer.alloc(64);
    const signature =
      key.asymmetricKeyType === 'rsa'
        ? sign('sha256', both, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 })
        : Buffer.alloc(0);
    return {
      nonce: nonce.toString('base64'),
      signature: signature.toString('base64'),
      r: rs.subarray(0, 32).toString('base64'),
      s: rs.subarray(32).toString('base64'),
    };
  };

  /** `$r` and the like stand for what is right. */
  const answers = [
    '{"rsa_signature":null,"ecdsa_signature":{"nonce":"$nonce","r":"$r","s":"$s"}}',
    '{"rsa_signature":{"nonce":"$nonce","signature":"$signature"},"ecdsa_signature":null}',
  ];
  return {
    seeds: [
      ...payloads.map((text) => Buffer.concat([Buffer.of(0), Buffer.from(text)])),
      ...answers.map((text, i) => Buffer.concat([Buffer.of(1 + i), Buffer.from(text)])),
    ],
    words: ['"certificates"', '"ecdsa_signature"', '"rsa_signature"', '"nonce"', '$nonce', '$r', '$s', '$signature', 'AAAA', 'null'],
    mutations: [ofItsKind],
    async run(input) {
      const kind = (input[0] ?? 0) % 3;
      const text = input.subarray(1).toString();
      const leaf = leaves[kind === 0 ? 0 : kind - 1] as (typeof leaves)[number];
      const payload = kind === 0 ? input.subarray(1) : Buffer.from(payloads[kind - 1] as string);
      let answered: { readonly said: string; readonly parts: ReturnType<typeof answer> } | undefined;
      const { agentPath, selectors } = await attestor.attest(
        { trustDomain, payload, csrSha256: Buffer.alloc(32), publicKeySha256: Buffer.alloc(32), peerAddress: '192.0.2.1' },
        (question) => {
          const parts = answer(question, leaf.key);
          if (kind === 0) {
            // a payload with another leaf: only its own key could answer
            const rsa = question.includes('"rsa_signature":{');
            const other = rsa ? (leaves[1] as typeof leaf) : (leaves[0] as typeof leaf);
            const mine = answer(question, other.key);
            return Promise.resolve(Buffer.from(fill(answers[rsa ? 1 : 0] as string, mine)));
          }
          const said = fill(text, parts);
          answered = { said, parts };
          return Promise.resolve(Buffer.from(said));
        },
        never,
      );
      if (answered && !isRight(answered.said, kind === 1 ? 'ecdsa_signature' : 'rsa_signature', answered.parts))
        throw wrong('a node is attested by an answer that its key did not sign', text);
      const [shown] = kind === 0 ? (JSON.parse(text) as { certificates: string[] }).certificates : [];
      if (kind === 0 && !leaves.some(({ der }) => shown === der.toString('base64')))
        throw wrong('a node is attested by a certificate that nobody signed', text);
      if (!/^\/spire\/agent\/x509pop\/[0-9a-f]{40}$/.test(agentPath)) throw wrong('a path of another kind', agentPath);
      return `attested ${kind} ${about(selectors.length)}`;
    },
  };
}

function fill(text: string, parts: Readonly<Record<string, string>>): string {
  return text.replace(/\$(nonce|signature|r|s)\b/g, (_, name: string) => parts[name] ?? '');
}

/** r and s are numbers: with zeros before them they are the same. */
function isRight(said: string, form: 'ecdsa_signature' | 'rsa_signature', parts: Readonly<Record<string, string>>): boolean {
  const members = (JSON.parse(said) as Record<string, Record<string, string>>)[form] ?? {};
  const number = (text: string | undefined) => BigInt(`0x0${Buffer.from(text ?? '', 'base64').toString('hex')}`);
  return members['nonce'] === parts['nonce'] && ['r', 's', 'signature'].every((name) => number(members[name]) === number(parts[name]));
}
