/** What a runtime can't check is neither accepted nor called a wrong signature. Real ones: test/e2e/18-the-sdk.test.ts. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { asciiBytes, base64url } from '../../../spiffe/base64.ts';
import { JWT_ALGORITHM_NAMES, type JwtAlgorithmName } from '../../../spiffe/jwt/jwt-algorithm.ts';
import { JwtAuthority } from '../../../spiffe/jwt/jwt-bundle.ts';
import { KNOWN_ANSWERS, KNOWN_WORDS } from '../../../spiffe/jwt/known-answers.ts';
import { ecKey, rsaKey } from '../../vectors/keys.ts';

type Verify = typeof import('../../../spiffe/jwt/jws-verify.ts');
type Node = typeof import('node:crypto');

const real = process.getBuiltinModule('node:crypto');
const subtle = crypto.subtle;

/** The file as it loads where node:crypto is `node`. */
async function load(node: Partial<Node> | undefined): Promise<Verify> {
  vi.resetModules();
  vi.stubGlobal('process', { ...process, getBuiltinModule: () => node });
  return import('../../../spiffe/jwt/jws-verify.ts');
}
const web = (verify: typeof subtle.verify) =>
  vi.stubGlobal('crypto', { subtle: { importKey: subtle.importKey.bind(subtle), verify: verify.bind(subtle) } });

afterEach(() => vi.unstubAllGlobals());

const words = asciiBytes(KNOWN_WORDS);
const keyOf = (alg: JwtAlgorithmName) => JwtAuthority.fromJwk(alg, KNOWN_ANSWERS[alg].jwk);
const goodOf = (alg: JwtAlgorithmName) => base64url(KNOWN_ANSWERS[alg].signature) ?? new Uint8Array();
const badOf = (alg: JwtAlgorithmName) => goodOf(alg).map((byte, at) => (at === 9 ? byte ^ 1 : byte));
const verdict = async (of: () => boolean | Promise<boolean>): Promise<unknown> => {
  try {
    return await of();
  } catch (error) {
    const { code, reason } = error as { code?: string; reason?: string };
    return `${code} ${reason}`;
  }
};
const UNABLE = 'UNIMPLEMENTED JWT_RUNTIME';

test('the known answers are those of keys that anybody can make again', () => {
  for (const alg of JWT_ALGORITHM_NAMES) {
    const curve = ({ ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' } as const)[alg as 'ES256'];
    const key = curve ? ecKey(KNOWN_WORDS, curve) : rsaKey(KNOWN_WORDS);
    const hash = `sha${alg.slice(2)}` as 'sha256';
    const signature = alg.startsWith('PS') ? key.signPss(Buffer.from(words), hash) : key.sign(Buffer.from(words), hash);
    expect(signature.toString('base64url')).toBe(KNOWN_ANSWERS[alg].signature);
    expect(key.publicKey.export({ format: 'jwk' })).toMatchObject(KNOWN_ANSWERS[alg].jwk);
  }
});

for (const alg of JWT_ALGORITHM_NAMES) {
  describe(alg, () => {
    test('a good signature is good and an altered one is not, by node:crypto and by WebCrypto', async () => {
      for (const node of [real, undefined]) {
        const { verifyJws } = await load(node);
        expect(await verifyJws(alg, words, keyOf(alg), goodOf(alg))).toBe(true);
        expect(await verifyJws(alg, words, keyOf(alg), badOf(alg))).toBe(false);
        expect(await verifyJws(alg, words.slice(1), keyOf(alg), goodOf(alg))).toBe(false);
      }
    });

    test('a signature that is too short or too long is not shown to the runtime', async () => {
      const { verifyJws } = await load(undefined);
      web(() => Promise.resolve(true));
      const good = goodOf(alg);
      expect(await verifyJws(alg, words, keyOf(alg), good.subarray(1))).toBe(false);
      expect(await verifyJws(alg, words, keyOf(alg), Uint8Array.of(0, ...good))).toBe(false);
      expect(await verifyJws(alg, words, keyOf(alg), good)).toBe(true);
    });

    const lacking = {
      throws: () => {
        throw new TypeError('no such option');
      },
      'says no to everything': () => false,
    };
    for (const [how, verify] of Object.entries(lacking)) {
      test(`where node:crypto ${how}, WebCrypto tells; without waiting nobody can`, async () => {
        const { verifyJws, verifyJwsSync } = await load({ ...real, verify });
        expect(await verifyJws(alg, words, keyOf(alg), goodOf(alg))).toBe(true);
        expect(await verifyJws(alg, words, keyOf(alg), badOf(alg))).toBe(false);
        expect(await verdict(() => verifyJwsSync(alg, words, keyOf(alg), goodOf(alg)))).toBe(UNABLE);
        const { verifyJwsSync: able } = await load(real);
        expect(able(alg, words, keyOf(alg), goodOf(alg))).toBe(true);
      });

      test(`where WebCrypto ${how} and there is nothing else, that is told, of good and bad ones alike`, async () => {
        const { verifyJws } = await load(undefined);
        web(async () => verify());
        expect(await verdict(() => verifyJws(alg, words, keyOf(alg), goodOf(alg)))).toBe(UNABLE);
        expect(await verdict(() => verifyJws(alg, words, keyOf(alg), badOf(alg)))).toBe(UNABLE);
      });
    }

    test('a key that the runtime cannot read is told, not called a wrong signature', async () => {
      const { verifyJws } = await load(undefined);
      vi.stubGlobal('crypto', { subtle: { importKey: () => Promise.reject(new DOMException('no', 'NotSupportedError')) } });
      expect(await verdict(() => verifyJws(alg, words, keyOf(alg), goodOf(alg)))).toBe(UNABLE);
    });
  });
}

test('without node:crypto nothing is told without waiting', async () => {
  const { verifyJwsSync } = await load(undefined);
  expect(await verdict(() => verifyJwsSync('ES256', words, keyOf('ES256'), goodOf('ES256')))).toBe(UNABLE);
});
