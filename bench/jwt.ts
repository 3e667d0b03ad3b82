/** JWT-SVIDs: CPU time of signing and validating, ours against jose and against node:crypto's bare signature. Prints a table. */
import { JwtBundle } from '../spiffe/jwt/jwt-bundle.ts';
import { signJwtSvid } from '../spiffe/jwt/sign-jwt-svid.ts';
import { generateKeyPairSync, sign, verify } from 'node:crypto';
import * as jose from 'jose';
import { jwtAuthority } from '../spiffe/bundle/bundle.ts';
import { systemClock } from '../spiffe/clock.ts';
import { TrustDomain } from '../spiffe/id.ts';
import { validateJwtSvid } from '../spiffe/jwt/jwt-svid.ts';

const trustDomain = TrustDomain.parse('example.org');

async function measure(what: string, times: number, run: () => unknown): Promise<void> {
  for (let i = 0; i < Math.min(500, times); i++) await run();
  const cpu = process.cpuUsage();
  for (let i = 0; i < times; i++) await run();
  const used = process.cpuUsage(cpu);
  console.log(`${what.padEnd(56)} ${((used.user + used.system) / times).toFixed(1).padStart(9)} µs CPU`);
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
  const josePrivate = await jose.importPKCS8(privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), alg);
  const josePublic = await jose.importSPKI(publicKey.export({ type: 'spki', format: 'pem' }).toString(), alg);

  await measure(`${alg} sign: node:crypto, the bare signature`, times, () => raw(data));
  await measure(`${alg} sign: warifu`, times, issue);
  await measure(`${alg} sign: jose`, times, () => new jose.SignJWT(claims).setProtectedHeader({ alg, kid, typ: 'JWT' }).sign(josePrivate));
  await measure(`${alg} verify: node:crypto, the bare signature`, times, () =>
    verify(hash, data, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature),
  );
  await measure(`${alg} verify: warifu, all rules of JWT-SVID`, times, () => validateJwtSvid(token, { audience: claims.aud, bundles }));
  await measure(`${alg} verify: jose.jwtVerify, key in hand`, times, () =>
    jose.jwtVerify(token, josePublic, { audience: claims.aud, algorithms: [alg] }),
  );
}
