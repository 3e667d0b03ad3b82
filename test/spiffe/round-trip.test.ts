/** Any input is read or refused with a SpiffeError, soon; and what was read, written and read again is the same. */
import { describe, expect, test } from 'vitest';
import { Bundle } from '../../spiffe/bundle/bundle.ts';
import { SpiffeError } from '../../spiffe/errors.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import { JwtBundle } from '../../spiffe/jwt/jwt-bundle.ts';
import { parseJwtSvidUnverified } from '../../spiffe/jwt/jwt-svid.ts';
import { parseEndpoint } from '../../spiffe/workload-api/endpoint.ts';
import { Certificate } from '../../spiffe/x509/certificate.ts';
import { X509Bundle } from '../../spiffe/x509/x509-bundle.ts';
import { X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { NOW_MS } from '../fakes/ca.ts';
import { DOORS, documentOf } from '../vectors/doors.ts';
import { type Mutant, mutants } from '../vectors/mutants.ts';
import { type BundleInput, FAMILIES, type Family, type Inputs, rowsOf } from '../vectors/row.ts';

/** What no input may take, on a machine that has more to do. */
const LIMIT_MS = 1000;

/** Undefined: refused. */
function open<F extends Family>({ family, input }: Mutant<F>): string | undefined {
  const started = performance.now();
  try {
    return DOORS[family](input);
  } catch (error) {
    expect(error).toBeInstanceOf(SpiffeError);
    expect((error as SpiffeError).reason).toMatch(/^[A-Z0-9_]+$/);
    return undefined;
  } finally {
    expect(performance.now() - started).toBeLessThan(LIMIT_MS);
  }
}

const base64 = (text: string) => Buffer.from(text, 'base64');

/** Of an input that is accepted. */
const AGAIN: { readonly [F in Family]?: (input: Inputs[F], saw: string) => void } = {
  'spiffe-id'(_input, saw) {
    const id = SpiffeId.parse(saw);
    expect(String(id)).toBe(saw);
    expect(SpiffeId.of(id.trustDomain, id.path).equals(id)).toBe(true);
    expect(SpiffeId.fromSegments(id.trustDomain, ...id.path.split('/').slice(1)).equals(id)).toBe(true);
    expect(JSON.stringify({ id })).toBe(JSON.stringify({ id: saw }));
  },
  'trust-domain'(_input, saw) {
    const trustDomain = TrustDomain.parse(saw);
    expect(TrustDomain.parse(String(trustDomain))).toBe(trustDomain);
    expect(SpiffeId.parse(String(trustDomain.id)).trustDomain).toBe(trustDomain);
  },
  'x509-svid-parse'(input) {
    const svid =
      'chain' in input ? X509Svid.fromDer(base64(input.chain), base64(input.key)) : X509Svid.fromPem(input.certificatesPem, input.keyPem);
    const { certificates, key } = svid.toPem();
    expect(X509Svid.fromPem(certificates, key).equals(svid)).toBe(true);
    expect(X509Svid.fromDer(svid.chainDer(), svid.keyPkcs8Der()).equals(svid)).toBe(true);
    if ('chain' in input) expect(svid.chainDer().equals(base64(input.chain))).toBe(true);
  },
  'x509-svid-verify'({ chain }) {
    for (const one of chain) expect(Certificate.parse(base64(one)).raw.equals(base64(one))).toBe(true);
  },
  'jwt-svid'({ token }, saw) {
    const svid = parseJwtSvidUnverified(token);
    expect([svid.token, String(svid.id)]).toEqual([token, saw]);
  },
  bundle(input) {
    bundleAgain(input);
  },
  'endpoint-address'({ text }, saw) {
    const endpoint = parseEndpoint(text);
    const written =
      'path' in endpoint
        ? `unix://${encodeURI(endpoint.path).replace(/[?#]/g, encodeURIComponent)}`
        : `tcp://${endpoint.host.includes(':') ? `[${endpoint.host}]` : endpoint.host}:${endpoint.port}`;
    expect(DOORS['endpoint-address']({ text: written })).toBe(saw);
  },
};

function bundleAgain(input: BundleInput): void {
  const trustDomain = TrustDomain.parse(input.trustDomain);
  const document = documentOf(input);
  if (input.form === 'spiffe') {
    const read = Bundle.fromJson(trustDomain, document);
    const written = Bundle.fromJson(trustDomain, read.toJson());
    expect(written.toJson()).toBe(read.toJson());
    // an authority whose key has no JWK is not written
    if (read.x509.authorities.every(({ keyKind }) => keyKind.type !== 'unknown')) expect(written.equals(read)).toBe(true);
  } else if (input.form === 'jwt') {
    const read = JwtBundle.fromJwks(trustDomain, document);
    expect(JwtBundle.fromJwks(trustDomain, read.toJwks()).equals(read)).toBe(true);
  } else {
    const read = input.form === 'x509-der' ? X509Bundle.fromDer(trustDomain, document) : X509Bundle.fromPem(trustDomain, document);
    expect(X509Bundle.fromDer(trustDomain, read.toDer()).equals(read)).toBe(true);
    expect(X509Bundle.fromPem(trustDomain, read.toPem()).equals(read)).toBe(true);
  }
}

function again<F extends Family>(family: F, input: Inputs[F], saw: string): void {
  AGAIN[family]?.(input, saw);
}

describe('what was read, written and read again is the same', () => {
  for (const family of FAMILIES.filter((one) => AGAIN[one])) {
    test(`${family}: every vector that is accepted`, () => {
      const good = rowsOf(family).filter((row) => row.expect === 'accept');
      for (const { input } of good) again(family, input, open({ family, input }) ?? '');
      expect(good.length).toBeGreaterThan(0);
    });
  }
});

test('any input is read or refused with a SpiffeError, soon; what is read comes through unchanged', () => {
  let read = 0;
  for (const one of mutants(7, 4000, NOW_MS)) {
    const saw = open(one);
    if (saw === undefined) continue;
    read++;
    again(one.family, one.input, saw);
  }
  // mutations that are all refused would prove little
  expect(read).toBeGreaterThan(200);
}, 60_000);
