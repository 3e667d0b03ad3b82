/** Writes certificates for the vectors, above all those that no decent library would write. */
import { createHash } from 'node:crypto';
import { keyUsageBits, type KeyUsage } from '../../spiffe/x509/certificate.ts';
import { der, derBits, derOid, derTime, TAG } from '../../spiffe/x509/der.ts';
import { NOW_MS } from '../fakes/ca.ts';
import type { Hash, VectorKey } from './keys.ts';

export const HOUR_MS = 3_600_000;
export const EKU = { server: '1.3.6.1.5.5.7.3.1', client: '1.3.6.1.5.5.7.3.2' } as const;

/** By name, in the order in which they are written. */
export type Extensions = Record<string, Buffer | undefined>;
export type Part = 'version' | 'serial' | 'algorithm' | 'issuer' | 'validity' | 'subject' | 'key' | 'extensions';

export interface Recipe {
  readonly key: VectorKey;
  /** Left out: it signs itself. */
  readonly issuer?: Made | undefined;
  /** A common name; '' for an empty subject. */
  readonly subject?: string;
  readonly uris?: readonly (string | Buffer)[];
  readonly dns?: readonly string[];
  /** GeneralNames as DER, behind the others. */
  readonly names?: readonly Buffer[];
  readonly sanCritical?: boolean;
  readonly ca?: boolean;
  readonly pathLen?: number;
  readonly basicConstraintsCritical?: boolean;
  readonly usages?: readonly KeyUsage[];
  readonly usagesCritical?: boolean;
  readonly purposes?: readonly string[];
  readonly purposesCritical?: boolean;
  readonly notBeforeMs?: number;
  readonly notAfterMs?: number;
  readonly hash?: Hash;
  /** Changes, adds or (undefined) takes away extensions. Names: basicConstraints, keyUsage, extKeyUsage, subjectAltName, ski, aki. */
  readonly extensions?: Extensions;
  /** Changes, adds or (undefined) takes away parts of what is signed. */
  readonly parts?: Partial<Record<Part, Buffer | undefined>>;
  /** The algorithm outside of what is signed. */
  readonly outerAlgorithm?: Buffer;
}

export interface Made {
  readonly der: Buffer;
  readonly name: Buffer;
  readonly key: VectorKey;
  readonly keyId: Buffer;
}

export const integer = (hex: string) => der(TAG.integer, Buffer.from(hex, 'hex'));
export const sequence = (...parts: Buffer[]) => der(TAG.sequence, ...parts);
export const extension = (oid: string, critical: boolean, value: Buffer) =>
  sequence(derOid(oid), ...(critical ? [der(TAG.boolean, Buffer.of(0xff))] : []), der(TAG.octetString, value));
export const general = (tag: number, text: string | Buffer) => der(tag, Buffer.from(text as string));

export function nameOf(common: string): Buffer {
  return common === '' ? sequence() : sequence(der(TAG.set, sequence(derOid('2.5.4.3'), general(TAG.utf8String, common))));
}

export function keyUsage(usages: readonly KeyUsage[], critical = true): Buffer {
  const bits = keyUsageBits(usages);
  let unused = 0;
  while (unused < 16 && !((bits >> unused) & 1)) unused++;
  const octets = unused >= 8 ? Buffer.of(unused - 8, bits >> 8) : Buffer.of(unused, bits >> 8, bits & 0xff);
  return extension('2.5.29.15', critical, der(TAG.bitString, bits === 0 ? Buffer.of(0) : octets));
}

export function altNames(critical: boolean, ...names: readonly Buffer[]): Buffer {
  return extension('2.5.29.17', critical, sequence(...names));
}

export function basicConstraints(ca: boolean, pathLen?: number, critical = true): Buffer {
  const parts = [
    ...(ca ? [der(TAG.boolean, Buffer.of(0xff))] : []),
    ...(pathLen === undefined ? [] : [der(TAG.integer, Buffer.of(pathLen))]),
  ];
  return extension('2.5.29.19', critical, sequence(...parts));
}

/** @param side permitted or excluded; hosts for URIs. */
export function uriConstraints(side: 'permitted' | 'excluded', ...hosts: readonly string[]): Buffer {
  const list = der(side === 'permitted' ? 0xa0 : 0xa1, ...hosts.map((host) => sequence(general(0x86, host))));
  return extension('2.5.29.30', true, sequence(list));
}

export const ALGORITHM_OIDS: Readonly<Record<string, string>> = {
  'ec sha1': '1.2.840.10045.4.1',
  'ec sha256': '1.2.840.10045.4.3.2',
  'ec sha384': '1.2.840.10045.4.3.3',
  'ec sha512': '1.2.840.10045.4.3.4',
  'rsa sha256': '1.2.840.113549.1.1.11',
  'ed25519 sha256': '1.3.101.112',
};

export function algorithmOf(key: VectorKey, hash: Hash): Buffer {
  const oid = derOid(ALGORITHM_OIDS[`${key.kind} ${hash}`] ?? '');
  return key.kind === 'rsa' ? sequence(oid, der(TAG.null)) : sequence(oid);
}

/** A leaf in SPIRE's shape, or with `ca` a signing certificate in SPIRE's shape, unless told otherwise. */
export function certificate(recipe: Recipe): Made {
  const { key, issuer, ca = false, hash = 'sha256', notBeforeMs = NOW_MS - HOUR_MS, notAfterMs = NOW_MS + HOUR_MS } = recipe;
  const signer = issuer?.key ?? key;
  const name = nameOf(recipe.subject ?? (ca ? 'ca' : 'web'));
  const keyId = createHash('sha1').update(key.spki).digest();
  const names = [
    ...(recipe.dns ?? []).map((one) => general(0x82, one)),
    ...(recipe.uris ?? [ca ? 'spiffe://example.org' : 'spiffe://example.org/web']).map((one) => general(0x86, one)),
    ...(recipe.names ?? []),
  ];
  const purposes = recipe.purposes ?? (ca ? [] : [EKU.server, EKU.client]);
  const usages = recipe.usages ?? (ca ? ['keyCertSign', 'cRLSign'] : ['digitalSignature', 'keyEncipherment', 'keyAgreement']);
  const extensions: Extensions = {
    basicConstraints: basicConstraints(ca, recipe.pathLen, recipe.basicConstraintsCritical),
    keyUsage: keyUsage(usages, recipe.usagesCritical),
    ...(purposes.length > 0 && {
      extKeyUsage: extension('2.5.29.37', recipe.purposesCritical ?? false, sequence(...purposes.map(derOid))),
    }),
    ...(names.length > 0 && { subjectAltName: altNames(recipe.sanCritical ?? recipe.subject === '', ...names) }),
    ski: extension('2.5.29.14', false, der(TAG.octetString, keyId)),
    aki: extension('2.5.29.35', false, sequence(general(0x80, issuer?.keyId ?? keyId))),
    ...recipe.extensions,
  };
  const algorithm = algorithmOf(signer, hash);
  const parts: Record<Part, Buffer | undefined> = {
    version: der(0xa0, integer('02')),
    serial: integer('0123'),
    algorithm,
    issuer: issuer?.name ?? name,
    validity: sequence(derTime(notBeforeMs), derTime(notAfterMs)),
    subject: name,
    key: key.spki,
    extensions: der(0xa3, sequence(...present(extensions))),
    ...recipe.parts,
  };
  const tbs = sequence(...present(parts));
  return { der: seal(tbs, signer, hash, recipe.outerAlgorithm ?? algorithm), name: parts.subject ?? name, key, keyId };
}

/** Signs what is to be signed. */
export function seal(tbs: Buffer, signer: VectorKey, hash: Hash = 'sha256', algorithm = algorithmOf(signer, hash)): Buffer {
  return sequence(tbs, algorithm, derBits(signer.signDer(tbs, hash)));
}

function present(parts: Readonly<Record<string, Buffer | undefined>>): Buffer[] {
  return Object.values(parts).filter((part) => part !== undefined);
}
