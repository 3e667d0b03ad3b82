/** Who may be at the other end of a TLS connection: access flags, any of which allows; and intentions, which must allow besides, where there are any. */
import { createHash } from 'node:crypto';
import { fail } from '../core/errors.ts';
import type { Intention, Intentions } from '../core/intention.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import { ATTRIBUTE, type Name } from '../spiffe/x509/x500-name.ts';
import type { UriPattern } from './uri-pattern.ts';

/** One that fits is enough. With none at all, and not `all`, intentions alone decide; where there are none either, nobody may. */
export interface Access {
  /** Everybody whose certificate was verified. */
  readonly all: boolean;
  readonly commonNames: readonly string[];
  readonly organizationalUnits: readonly string[];
  readonly dnsNames: readonly string[];
  readonly uris: readonly UriPattern[];
  /** SHA-256 of the public key (SubjectPublicKeyInfo), base64. */
  readonly spkiPins: readonly string[];
}

export const NOBODY: Access = {
  all: false,
  commonNames: [],
  organizationalUnits: [],
  dnsNames: [],
  uris: [],
  spkiPins: [],
};

/** The other end, as it was verified. */
export interface Peer {
  readonly id: SpiffeId | undefined;
  readonly leaf: Certificate;
}

/** Why a peer may. */
export interface Admission {
  /** Such as `uri spiffe://example.org/*`, `intention web-db`. */
  readonly by: string;
  readonly rule: Intention | undefined;
  /** The intention in trial that would have refused. */
  readonly shadow: Intention | undefined;
  readonly policyVersion: string | undefined;
}

/** Who was verified and may not, and by what rule. */
export interface Refusal {
  readonly peer: Peer;
  readonly rule: Intention | undefined;
  readonly policyVersion: string | undefined;
}

const refusals = new WeakMap<object, Refusal>();

/** Of what `admit` threw. */
export function refusalOf(error: unknown): Refusal | undefined {
  return typeof error === 'object' && error !== null ? refusals.get(error) : undefined;
}

/**
 * Throws DENIED, with reason ID_NOT_ALLOWED where no flag allows and INTENTION_DENIED where an intention forbids.
 * @param ends who is calling whom, where both have SPIFFE IDs
 */
export function admit(
  access: Access,
  peer: Peer,
  ends: { readonly source?: SpiffeId; readonly destination?: SpiffeId },
  intentions?: Intentions,
): Admission {
  const flags = hasRules(access);
  const flag = flags ? matched(access, peer) : undefined;
  if (flags && flag === undefined) throw denied(peer, `wants ${wants(access)}`);
  if (!intentions) {
    if (flag === undefined) throw denied(peer, 'no access flag and no intention says who may');
    return { by: flag, rule: undefined, shadow: undefined, policyVersion: undefined };
  }
  const { source, destination } = ends;
  if (!source || !destination) throw denied(peer, 'intentions are for SPIFFE IDs, and one end has none');
  const verdict = intentions.check(source, destination);
  if (!verdict.allowed) {
    const error = fail('DENIED', verdict.why, { reason: 'INTENTION_DENIED' });
    refusals.set(error, { peer, rule: verdict.rule, policyVersion: intentions.version });
    throw error;
  }
  return {
    by: [flag, verdict.rule ? `intention ${verdict.rule.id}` : 'the default of the intentions'].filter(Boolean).join(', '),
    rule: verdict.rule,
    shadow: verdict.shadow,
    policyVersion: intentions.version,
  };
}

export function hasRules(access: Access): boolean {
  return access.all || RULES.some(([, of]) => of(access).length > 0);
}

const RULES: readonly (readonly [name: string, of: (access: Access) => readonly unknown[]])[] = [
  ['common name', (access) => access.commonNames],
  ['organizational unit', (access) => access.organizationalUnits],
  ['DNS name', (access) => access.dnsNames],
  ['URI', (access) => access.uris.map(({ text }) => text)],
  ['public key', (access) => access.spkiPins],
];

function wants(access: Access): string {
  return RULES.filter(([, of]) => of(access).length > 0)
    .map(([name, of]) => `${name} ${of(access).slice(0, 8).join(' or ')}${of(access).length > 8 ? ' or another' : ''}`)
    .join(', or ');
}

function matched(access: Access, { leaf }: Peer): string | undefined {
  if (access.all) return 'everybody may';
  for (const uri of access.uris) if (leaf.uris.some((one) => uri.matches(one))) return `URI ${uri.text}`;
  for (const name of access.dnsNames) if (leaf.dnsNames.includes(name)) return `DNS name ${name}`;
  if (access.commonNames.length > 0 || access.organizationalUnits.length > 0) {
    const subject = leaf.subjectName;
    // the last one counts, as everywhere
    const commonName = valuesOf(subject, ATTRIBUTE.commonName).at(-1);
    if (commonName !== undefined && access.commonNames.includes(commonName)) return `common name ${commonName}`;
    const unit = valuesOf(subject, ATTRIBUTE.organizationalUnit).find((one) => access.organizationalUnits.includes(one));
    if (unit !== undefined) return `organizational unit ${unit}`;
  }
  if (access.spkiPins.length > 0) {
    const pin = pinOf(leaf);
    if (access.spkiPins.includes(pin)) return `public key ${pin}`;
  }
  return undefined;
}

/** SHA-256 of the public key, base64. */
export function pinOf(leaf: Certificate): string {
  return createHash('sha256').update(leaf.spkiDer).digest('base64');
}

function valuesOf(name: Name, oid: string): readonly string[] {
  return name.flatMap((rdn) => rdn.filter((one) => one.oid === oid).map((one) => one.value));
}

function denied(peer: Peer, why: string): Error {
  const error = fail('DENIED', `${peer.id ?? peer.leaf.subjectText} is not allowed: ${why}`, { reason: 'ID_NOT_ALLOWED' });
  refusals.set(error, { peer, rule: undefined, policyVersion: undefined });
  return error;
}
