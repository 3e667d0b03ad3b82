/** An input of a vector in the form in which judge.go takes it. */
import { NOW_MS } from '../fakes/ca.ts';
import { documentOf } from '../vectors/doors.ts';
import type { Family, Inputs } from '../vectors/row.ts';
import type { Exhibit } from './setup.ts';

const base64 = (text: string) => Buffer.from(text).toString('base64');

/** How each family is put to go-spiffe; null: it has no such door. */
const MADE: { readonly [F in Family]: ((input: Inputs[F]) => Omit<Exhibit, 'family'>) | null } = {
  'spiffe-id': (input) =>
    'text' in input ? { form: 'text', text: base64(input.text) } : { form: 'path' in input ? 'path' : 'segments', ...input },
  'trust-domain': ({ text }) => ({ text: base64(text) }),
  match: ({ matcher, of, id }) => ({ form: matcher, of, text: base64(id) }),
  'x509-svid-parse': (input) =>
    'chain' in input
      ? { form: 'der', certificates: input.chain, key: input.key }
      : { form: 'pem', certificates: base64(input.certificatesPem), key: base64(input.keyPem) },
  'x509-svid-verify': ({ chain, bundles, nowMs = NOW_MS }) => ({ chain, roots: bundles, nowMs }),
  'x509-profile': null,
  'jwt-svid': ({ token, audience, bundles }) => ({
    token,
    audience,
    jwks: Object.fromEntries(Object.entries(bundles).map(([name, jwks]) => [name, base64(jwks)])),
  }),
  bundle: (input) => ({ form: input.form, trustDomain: input.trustDomain, text: documentOf(input).toString('base64') }),
  'endpoint-address': ({ text }) => ({ text: base64(text) }),
};

export function exhibitOf<F extends Family>(family: F, input: Inputs[F]): Exhibit | undefined {
  const made = MADE[family];
  return made ? { family, ...made(input) } : undefined;
}

/** What both must see alike, in our words: go-spiffe tells no sequence, and of an address nothing. */
export function comparable(family: Family, saw: string): string {
  if (family === 'bundle') return saw.replace(/, (?:sequence|hint) .*/, '');
  return family === 'endpoint-address' ? '' : saw;
}
