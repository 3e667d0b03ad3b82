/** The bundle of our own trust domain, and what stored bundles are to those who verify with them. */
import { fail } from '../core/errors.ts';
import { Bundle, jwtAuthority } from '../spiffe/bundle/bundle.ts';
import { Certificate } from '../spiffe/x509/certificate.ts';
import { TrustDomain } from '../spiffe/id.ts';
import type { State } from './state.ts';
import type { Store, StoredBundle } from './store/store.ts';

export type StoredX509Authority = StoredBundle['x509Authorities'][number];
export type StoredJwtAuthority = StoredBundle['jwtAuthorities'][number];

export interface Bundles {
  /** Our own, as memory has it. Throws NOT_FOUND before the first authority was published. */
  own(): StoredBundle;
  /** Adds what is not there yet; gives the bundle after it. Throws REQUEST_INVALID for a key id that another key has. Resolves when memory has it. */
  append(x509Authorities: readonly StoredX509Authority[], jwtAuthorities: readonly StoredJwtAuthority[]): Promise<StoredBundle>;
}

export function createBundles(parts: { readonly store: Store; readonly state: State; readonly trustDomain: TrustDomain }): Bundles {
  const { store, state, trustDomain } = parts;
  return {
    own() {
      const bundle = state.bundle(trustDomain.name);
      if (!bundle) throw fail('NOT_FOUND', 'bundle not found');
      return bundle;
    },
    async append(x509Authorities, jwtAuthorities) {
      const { bundle, changed, seq } = await store.bundles.update(trustDomain.name, (stored) => {
        const before = stored ?? emptyBundle(trustDomain.name);
        const after = {
          ...before,
          x509Authorities: withX509(before.x509Authorities, x509Authorities),
          jwtAuthorities: withJwt(before.jwtAuthorities, jwtAuthorities),
        };
        return stored && sameContent(before, after) ? undefined : after;
      });
      if (changed) await state.settled(seq);
      if (!bundle) throw fail('NOT_FOUND', 'bundle not found');
      return bundle;
    },
  };
}

export function emptyBundle(trustDomain: string): StoredBundle {
  return { trustDomain, x509Authorities: [], jwtAuthorities: [], refreshHintSeconds: 0, sequence: 0 };
}

function withX509(before: readonly StoredX509Authority[], more: readonly StoredX509Authority[]): readonly StoredX509Authority[] {
  const after = [...before];
  for (const one of more) if (!after.some(({ der }) => der.equals(one.der))) after.push(one);
  return after;
}

function withJwt(before: readonly StoredJwtAuthority[], more: readonly StoredJwtAuthority[]): readonly StoredJwtAuthority[] {
  const after = [...before];
  for (const one of more) {
    const at = after.findIndex(({ keyId }) => keyId === one.keyId);
    const known = after[at];
    // a second key under one id would let whoever adds it sign for the first
    if (known && !known.spkiDer.equals(one.spkiDer))
      throw fail('REQUEST_INVALID', `another key has the key id ${JSON.stringify(one.keyId)}`);
    if (!known) after.push(one);
    else if (one.notAfterMs > known.notAfterMs) after[at] = { ...known, notAfterMs: one.notAfterMs };
  }
  return after;
}

/** Whether nothing differs but, perhaps, the sequence. */
export function sameContent(a: StoredBundle, b: StoredBundle): boolean {
  if (a === b) return true;
  return (
    a.trustDomain === b.trustDomain &&
    a.refreshHintSeconds === b.refreshHintSeconds &&
    a.x509Authorities.length === b.x509Authorities.length &&
    a.jwtAuthorities.length === b.jwtAuthorities.length &&
    a.x509Authorities.every((one, i) => {
      const other = b.x509Authorities[i];
      return other?.tainted === one.tainted && other.der.equals(one.der);
    }) &&
    a.jwtAuthorities.every((one, i) => {
      const other = b.jwtAuthorities[i];
      return (
        other?.keyId === one.keyId &&
        other.notAfterMs === one.notAfterMs &&
        other.tainted === one.tainted &&
        other.spkiDer.equals(one.spkiDer)
      );
    })
  );
}

const parsed = new WeakMap<StoredBundle, Bundle>();

/** What one verifies with. Parsed once for each stored bundle. Throws BUNDLE_INVALID, which a bundle that came through the door never does. */
export function bundleOf(stored: StoredBundle): Bundle {
  let bundle = parsed.get(stored);
  if (!bundle) {
    bundle = new Bundle(TrustDomain.parse(stored.trustDomain), {
      x509Authorities: stored.x509Authorities.map(({ der }) => Certificate.parse(der)),
      jwtAuthorities: stored.jwtAuthorities.map(({ keyId, spkiDer }) => jwtAuthority(keyId, spkiDer)),
      sequence: stored.sequence,
      refreshHintSeconds: stored.refreshHintSeconds,
    });
    parsed.set(stored, bundle);
  }
  return bundle;
}
