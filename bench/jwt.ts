/** JWT-SVIDs: CPU time of signing and validating, ours against jose and against node:crypto's bare signature. Prints a table. */
import { JwtBundle } from '../spiffe/jwt/jwt-bundle.ts';
import { signJwtSvid } from '../spiffe/jwt/sign-jwt-svid.ts';
import { generateKeyPairSync, sign, verify } from 'node:crypto';
import * as jose from 'jose';
import { jwtAuthority } from '../spiffe/bundle/bundle.ts';
import { systemClock } from '../spiffe/clock.ts';
import { TrustDomain } from '../spiffe/id.ts';
import { derOfSignature } from '../spiffe/jwt/ecdsa-signature.ts';
import { joseKeys } from '../spiffe/jwt/jose.ts';
import { validateJwtSvid } from '../spiffe/jwt/jwt-svid.ts';

const trustDomain = TrustDomain.parse('example.org');

/** CPU time of each way, in microseconds: in turns, so that what else the machine does falls on all alike; the median of the turns. */
async function measure(times: number, ways: Readonly<Record<string, () => unknown>>): Promise<Readonly<Record<string, number>>> {
  const turns = 20;
  const each = Math.ceil(times / turns);
  const seen: Record<string, number[]> = {};
  for (const run of Object.values(ways)) for (let i = 0; i < Math.min(1500, times); i++) await run();
  for (let turn = 0; turn < turns; turn++) {
    for (const [what, run] of Object.entries(ways)) {
      const cpu = process.cpuUsage();
      for (let i = 0; i < each; i++) await run();
      const used = process.cpuUsage(cpu);
      (seen[what] ??= []).push((used.user + used.system) / each);
    }
  }
  const medians = Object.entries(seen).map(([what, all]) => [what, all.sort((a, b) => a - b)[turns / 2] ?? 0] as const);
  for (const [what, us] of medians) console.log(`${what.padEnd(56)} ${us.toFixed(1).padStart(9)} µs CPU`);
  return Object.fromEntries(medians);
}

const nowMs = systemClock.now();
const now = Math.floor(nowMs / 1000);
const claims = { sub: 'spiffe://example.org/ns/prod/sa/payments-api', aud: ['spiffe://example.org/db'], exp: now + 300, iat: now };
const kid = 'abcdEFGH1234';

for (const [alg, times, keys] of [
  ['ES256', 10_000, generateKeyPairSync('ec', { namedCurve: 'P-256' })],
  ['ES384', 500, generateKeyPairSync('ec', { namedCurve: 'P-384' })],
  ['RS256', 2000, generateKeyPairSync('rsa', { modulusLength: 2048 })],
] as const) {
  const hash = alg === 'ES384' ? 'sha384' : 'sha256';
  const { publicKey, privateKey } = keys;
  const bundles = new JwtBundle(trustDomain, [jwtAuthority(kid, publicKey)]);
  const raw = (data: Uint8Array) => sign(hash, data, { key: privateKey, dsaEncoding: 'ieee-p1363' });
  const issue = () => signJwtSvid({ alg, kid, claims }, async (data) => raw(data));
  const { token } = await issue();
  const data = Buffer.from(token.slice(0, token.lastIndexOf('.')));
  const signature = raw(data);
  const der = alg.startsWith('ES') ? derOfSignature(signature) : signature;
  const josePrivate = await jose.importPKCS8(privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), alg);
  const josePublic = await jose.importSPKI(publicKey.export({ type: 'spki', format: 'pem' }).toString(), alg);

  const bare = `${alg} verify: node:crypto, the bare signature`;
  const bareDer = `${alg} verify: node:crypto, the key without options, DER`;
  const ours = `${alg} verify: warifu, all rules of JWT-SVID`;
  const medians = await measure(times, {
    [`${alg} sign: node:crypto, the bare signature`]: () => raw(data),
    [`${alg} sign: warifu`]: issue,
    [`${alg} sign: jose`]: () => new jose.SignJWT(claims).setProtectedHeader({ alg, kid, typ: 'JWT' }).sign(josePrivate),
    [bare]: () => verify(hash, data, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature),
    [bareDer]: () => verify(hash, data, publicKey, der),
    [ours]: () => validateJwtSvid(token, { audience: claims.aud, bundles }),
    [`${alg} verify: jose.jwtVerify, key in hand`]: () => jose.jwtVerify(token, josePublic, { audience: claims.aud, algorithms: [alg] }),
    [`${alg} verify: jose.jwtVerify, keys of a bundle (joseKeys)`]: () =>
      jose.jwtVerify(token, joseKeys(bundles), { audience: claims.aud, algorithms: [alg] }),
  });
  for (const one of [bare, bareDer])
    console.log(`${`warifu over ${one}`.padEnd(70)} ${((medians[ours] ?? 0) - (medians[one] ?? 0)).toFixed(1).padStart(7)} µs CPU`);
  console.log();
}
