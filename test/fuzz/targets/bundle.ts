/** SPIFFE bundle documents and JWK sets: read, written and read again they are the same; and JSON: what we read, JSON.parse reads alike. */
import { spkiOfJwk } from '../../../spiffe/x509/spki.ts';
import { JwtBundle } from '../../../spiffe/jwt/jwt-bundle.ts';
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { Bundle, jwtAuthority } from '../../../spiffe/bundle/bundle.ts';
import { Certificate } from '../../../spiffe/x509/certificate.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { type JsonValue, parseJson } from '../../../spiffe/json.ts';
import { isCoded } from '../../../core/errors.ts';
import { testRoot } from '../../fakes/ca.ts';
import { mutateDer } from '../der.ts';
import { about, type Target, wrong } from '../fuzzer.ts';
import { jsonMutation } from '../json.ts';
import { PLAIN } from '../mutations.ts';

const trustDomain = TrustDomain.parse('example.org');

export default async function bundle(): Promise<Target> {
  const roots = [await testRoot(), await testRoot({ keyType: 'rsa-2048' }), await testRoot({ keyType: 'ed25519' })];
  const ec = jwtAuthority('ec', generateKeyPairSync('ec', { namedCurve: 'P-521' }).publicKey);
  const rsa = jwtAuthority('rsa', generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey);
  const whole = new Bundle(trustDomain, {
    x509Authorities: roots.map(({ der }) => Certificate.parse(der)),
    jwtAuthorities: [ec, rsa],
    sequence: 2n ** 64n - 1n,
    refreshHintSeconds: 300,
  });
  return {
    seeds: [
      whole.toJson(),
      new Bundle(trustDomain, { jwtAuthorities: [ec] }).toJson(),
      whole.jwt.toJwks(),
      '{"keys":[]}',
      '[1e3,-0.5,"\\u00e9\\ud83d\\ude00",{"a":null}]',
    ].map((text) => Buffer.from(text)),
    words: [
      '"use"',
      '"x509-svid"',
      '"jwt-svid"',
      '"sig"',
      '"kty"',
      '"EC"',
      '"OKP"',
      '"crv"',
      '"P-256"',
      '"keys"',
      '"kid"',
      '"d"',
      '"k"',
      '"x5c"',
      '"spiffe_sequence"',
      '\\u0000',
      '\\ud800',
      '[',
      '{',
      '"',
      '\uFEFF',
      '\u2028',
    ],
    mutations: [
      jsonMutation((random, old) => {
        const bytes = Buffer.from(old, 'base64');
        // a certificate among the texts
        if (bytes[0] === 0x30 && bytes.length > 100 && !random.oneIn(4)) return mutateDer(random, bytes, bytes).toString('base64');
        if (random.oneIn(2))
          return random
            .pick(PLAIN)(random, bytes, bytes)
            .toString(random.oneIn(2) ? 'base64' : 'base64url');
        return random.pick(PLAIN)(random, Buffer.from(old), bytes).toString();
      }),
    ],
    run(input) {
      compareJson(input);
      const jwks = outcome(() => {
        const read = JwtBundle.fromJwks(trustDomain, input);
        if (!JwtBundle.fromJwks(trustDomain, read.toJwks()).equals(read)) throw wrong('a JWK set written is another one');
        return about(read.authorities.size);
      });
      const read = Bundle.fromJson(trustDomain, input);
      const written = read.toJson();
      let again: Bundle;
      try {
        again = Bundle.fromJson(trustDomain, written);
      } catch (error) {
        throw wrong(`a bundle that we wrote is not read: ${(error as Error).message.slice(0, 200)}`, written);
      }
      if (again.toJson() !== written) throw wrong('a bundle is written another way the second time', written, again.toJson());
      // a certificate whose key has no JWK form is not published
      const lost = read.x509.authorities.filter(({ keyKind }) => keyKind.type === 'unknown').length;
      if (lost === 0 && !again.equals(read)) throw wrong('a bundle written is another one', written);
      for (const authority of read.jwt.authorities.values()) {
        const key = createPublicKey({ key: spkiOfJwk(authority.jwk), format: 'der', type: 'spki' });
        if (!key.equals(createPublicKey({ key: authority.jwk, format: 'jwk' }))) throw wrong('a JWT authority of two keys');
      }
      return `${about(read.x509.authorities.length)} ${about(read.jwt.authorities.size)} ${read.sequence === undefined} ${read.refreshHintSeconds === undefined} ${lost} ${jwks}`;
    },
  };
}

function outcome(run: () => unknown): string {
  try {
    return String(run());
  } catch (error) {
    if (isCoded(error)) return String(error.reason);
    throw error;
  }
}

/** Whatever our strict reader takes, the lax one takes alike. */
function compareJson(input: Buffer): void {
  let ours: JsonValue;
  try {
    ours = parseJson(input);
  } catch (error) {
    if (isCoded(error)) return;
    throw error;
  }
  let theirs: unknown;
  try {
    theirs = JSON.parse(input.toString());
  } catch (error) {
    throw wrong('JSON.parse does not read what we read', error);
  }
  const text = (value: unknown) => JSON.stringify(value, (_, one: unknown) => (typeof one === 'bigint' ? Number(one) : one));
  if (text(ours) !== text(theirs)) throw wrong('JSON.parse reads something else', text(ours), text(theirs));
}
