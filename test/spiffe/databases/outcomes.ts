/** What comes of each attack, by who judges: the rows of docs/databases.md. */
import type { Way } from './ways.ts';

export type Outcome =
  /** By our verdict; `one`: with the bundle of one trust domain at hand. */
  | { readonly is: 'refused'; readonly by: 'us'; readonly bundles: 'all' | 'one' }
  | { readonly is: 'refused'; readonly by: 'OpenSSL'; readonly words: RegExp }
  | { readonly is: 'let through' };

/** In the first words when an anchor may be any authority, in the second when only a root. */
const STRANGER = /unable to (?:get local issuer|verify the first) certificate/;

/** What OpenSSL refuses when its anchors are the authorities of our trust domain, and how Node says so. */
const OPENSSL: Readonly<Record<string, RegExp>> = {
  'a trust domain that has no bundle': STRANGER,
  'an unknown authority under our name': STRANGER,
  'a federated authority signing our domain': STRANGER,
  expired: /certificate has expired/,
  'not yet valid': /certificate is not yet valid/,
};

export function outcome({ judge }: Pick<Way, 'judge'>, what: string): Outcome {
  if (judge === 'us') return { is: 'refused', by: 'us', bundles: 'all' };
  const words = OPENSSL[what];
  if (words !== undefined) return { is: 'refused', by: 'OpenSSL', words };
  return judge === 'driver' ? { is: 'let through' } : { is: 'refused', by: 'us', bundles: 'one' };
}
