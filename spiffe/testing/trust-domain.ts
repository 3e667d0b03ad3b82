/** A trust domain for tests: authorities made on the spot, the SVIDs that they sign, and certificates that break the rules. Trusted by nobody else. */
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { Bundle, jwtAuthority } from '../bundle/bundle.ts';
import { type Clock, systemClock } from '../clock.ts';
import { SpiffeId, TrustDomain } from '../id.ts';
import { Certificate, EKU, type KeyUsage } from '../x509/certificate.ts';
import { der, derBits, derOid, derTime, derUnsigned, TAG } from '../x509/der.ts';
import {
  akiExtension,
  altNames,
  basicConstraintsExtension,
  extension,
  extKeyUsageExtension,
  keyUsageExtension,
  nameDer,
  skiExtension,
  SVID_SUBJECT,
} from '../x509/parts.ts';
import { formatPem } from '../x509/pem.ts';
import { SIGNATURE_ALGORITHMS } from '../x509/signature-algorithm.ts';
import { readSpki } from '../x509/spki.ts';
import { X509Svid } from '../x509/x509-svid.ts';

/** How its authorities are made. */
export interface TrustDomainOptions {
  /** What `now` is. Default: the system's. */
  readonly clock?: Pick<Clock, 'now'> | undefined;
  /** Whether SVIDs are signed by an intermediate, which comes with each. Default false. */
  readonly intermediate?: boolean | undefined;
  /** Of an authority, from when it is made. Default: a year. */
  readonly authorityTtlMs?: number | undefined;
  /** Of the bundle. Default: none. */
  readonly refreshHintSeconds?: number | undefined;
}

export interface Lifetime {
  /** From now; below zero for what has expired already. Default: an hour for certificates, five minutes for tokens. */
  readonly ttlMs?: number | undefined;
  /** In place of `ttlMs`: milliseconds since 1970, cut to whole seconds. */
  readonly notAfterMs?: number | undefined;
  /** Default for certificates: a minute before now, or before the end when that is past. */
  readonly notBeforeMs?: number | undefined;
}

/** What an X.509-SVID says. */
export interface X509SvidOptions extends Lifetime {
  /** What the Workload API would call it. Default: none. */
  readonly hint?: string | undefined;
  /** DNS alternative names; the first becomes the common name too, as in SPIRE. Default: none. */
  readonly dnsNames?: readonly string[] | undefined;
  /** A private key on P-256. Default: a new one. */
  readonly key?: KeyObject | undefined;
}

/** What to break. Each of these left alone gives a good SVID. */
export interface RawSvidOptions extends Omit<X509SvidOptions, 'hint'> {
  /** Written as they are, in place of the one SPIFFE ID: none, two, another trust domain's, or no SPIFFE IDs at all. */
  readonly uris?: readonly string[] | undefined;
  /** Sets the CA flag. */
  readonly ca?: boolean | undefined;
  /** null: no such extension. Default: digitalSignature, keyEncipherment, keyAgreement. */
  readonly keyUsage?: readonly KeyUsage[] | null | undefined;
  /** OIDs; null: no such extension. Default: serverAuth and clientAuth. */
  readonly extKeyUsage?: readonly string[] | null | undefined;
  /** Adds a critical extension that nobody knows. */
  readonly unknownCritical?: boolean | undefined;
  /** Signed by a key that is not the authority's, though it bears its name. */
  readonly forged?: boolean | undefined;
  /** Leaves the intermediate out, where there is one. */
  readonly leafOnly?: boolean | undefined;
}

/** A chain that was not judged, with the leaf's key. */
export interface RawSvid {
  /** Leaf first. */
  readonly chainDer: readonly Buffer[];
  readonly privateKey: KeyObject;
  readonly certificatesPem: string;
  /** PKCS#8. */
  readonly keyPem: string;
}

/** What a token says. */
export interface JwtSvidOptions extends Lifetime {
  readonly audience: string | readonly string[];
  /** Put over the claims (`sub`, `aud`, `exp`, `iat`) as they are, to add or to break; undefined takes a claim away. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined;
  /** The same for the header (`alg`, `kid`, `typ`). The signature stays ES256. */
  readonly header?: Readonly<Record<string, unknown>> | undefined;
  /** Signed by a key that is not the authority's. */
  readonly forged?: boolean | undefined;
}

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
const YEAR_MS = 365 * 24 * HOUR_MS;
const LEAF_USAGE: readonly KeyUsage[] = ['digitalSignature', 'keyEncipherment', 'keyAgreement'];

interface Issuer {
  readonly certificate: Certificate;
  readonly key: KeyObject;
}

interface Authority {
  readonly root: Issuer;
  readonly intermediate: Issuer | undefined;
  readonly jwtKeyId: string;
  readonly jwtKey: KeyObject;
}

/** Keys and certificates in the shape that SPIRE gives them, P-256 throughout. Nothing is kept anywhere: it ends with the process. */
export class EphemeralTrustDomain {
  readonly trustDomain: TrustDomain;
  readonly clock: Pick<Clock, 'now'>;
  readonly #options: TrustDomainOptions;
  /** The newest, which signs, is the last. */
  #authorities: readonly [...Authority[], Authority];
  #sequence = 1n;
  #bundle: Bundle | undefined;

  private constructor(trustDomain: TrustDomain, options: TrustDomainOptions) {
    this.trustDomain = trustDomain;
    this.#options = options;
    this.clock = options.clock ?? systemClock;
    this.#authorities = [this.#newAuthority()];
  }

  /** @param name such as `example.org`. Throws ID_INVALID. */
  static create(name: string | TrustDomain, options: TrustDomainOptions = {}): EphemeralTrustDomain {
    return new EphemeralTrustDomain(typeof name === 'string' ? TrustDomain.parse(name) : name, options);
  }

  /** @param path with its leading slash. Throws ID_INVALID. */
  id(path: string): SpiffeId {
    return SpiffeId.of(this.trustDomain, path);
  }

  /** The authorities of now, X.509 and JWT; another value after each change. */
  get bundle(): Bundle {
    this.#bundle ??= new Bundle(this.trustDomain, {
      x509Authorities: this.#authorities.map(({ root }) => root.certificate),
      jwtAuthorities: this.#authorities.map(({ jwtKeyId, jwtKey }) => jwtAuthority(jwtKeyId, jwtKey)),
      sequence: this.#sequence,
      refreshHintSeconds: this.#options.refreshHintSeconds,
    });
    return this.#bundle;
  }

  /** Makes new authorities, which sign from now on. The older ones stay in the bundle until `retire`. */
  rotate(): void {
    this.#change([...this.#authorities, this.#newAuthority()]);
  }

  /** Takes all authorities but the newest out of the bundle: what they signed is good for nothing any more. */
  retire(): void {
    this.#change([this.#authorities.at(-1) as Authority]);
  }

  /** @param path with its leading slash. Throws SVID_INVALID or ID_INVALID for what `X509Svid` itself would refuse: see `rawSvid`. */
  x509Svid(path: string, options: X509SvidOptions = {}): X509Svid {
    const { hint, ...rest } = options;
    const { chainDer, privateKey } = this.rawSvid(this.id(path).path, rest);
    return X509Svid.of(
      chainDer.map((one) => Certificate.parse(one)),
      privateKey,
      hint,
    );
  }

  /** An X.509-SVID, or what looks like one and must be refused: for tests of those who have to refuse it. */
  rawSvid(path: string, options: RawSvidOptions = {}): RawSvid {
    const { dnsNames = [], keyUsage = LEAF_USAGE, extKeyUsage = [EKU.serverAuth, EKU.clientAuth] } = options;
    const [commonName] = dnsNames;
    const key = options.key ?? newKey();
    const uris = options.uris ?? [`${this.trustDomain.id}${path}`];
    const { root, intermediate } = this.#authorities.at(-1) as Authority;
    const { certificate, key: issuerKey } = intermediate ?? root;
    const leaf = write({
      issuer: { certificate, key: options.forged ? newKey() : issuerKey },
      serial: newSerial(),
      subject: nameDer(commonName === undefined ? SVID_SUBJECT : { ...SVID_SUBJECT, commonName }),
      key,
      ...this.#span(options, HOUR_MS),
      extensions: [
        ...(keyUsage ? [keyUsageExtension(keyUsage)] : []),
        ...(extKeyUsage ? [extKeyUsageExtension(extKeyUsage)] : []),
        basicConstraintsExtension(options.ca ? {} : undefined),
        ...(uris.length + dnsNames.length > 0 ? [altNames(uris, dnsNames, false)] : []),
        // 1.3.6.1.4.1.32473: set aside for examples (RFC 5612)
        ...(options.unknownCritical ? [extension(derOid('1.3.6.1.4.1.32473.1'), true, der(TAG.null))] : []),
      ],
    });
    const chainDer = intermediate && !options.leafOnly ? [leaf, intermediate.certificate.raw] : [leaf];
    return {
      chainDer,
      privateKey: key,
      certificatesPem: chainDer.map((one) => formatPem('CERTIFICATE', one)).join(''),
      keyPem: formatPem('PRIVATE KEY', key.export({ type: 'pkcs8', format: 'der' })),
    };
  }

  /** A token, signed by ES256. @param path with its leading slash */
  jwtSvid(path: string, options: JwtSvidOptions): string {
    const { audience, header, claims, forged } = options;
    const { jwtKeyId, jwtKey } = this.#authorities.at(-1) as Authority;
    const { notAfterMs } = this.#span(options, 5 * MINUTE_MS);
    const seconds = (ms: number) => Math.floor(ms / 1000);
    const payload = {
      sub: `${this.trustDomain.id}${path}`,
      aud: typeof audience === 'string' ? [audience] : audience,
      exp: seconds(notAfterMs),
      iat: seconds(this.clock.now()),
      ...(options.notBeforeMs !== undefined && { nbf: seconds(options.notBeforeMs) }),
      ...claims,
    };
    const signed = [{ alg: 'ES256', kid: jwtKeyId, typ: 'JWT', ...header }, payload]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.');
    const signature = sign('sha256', Buffer.from(signed), { key: forged ? newKey() : jwtKey, dsaEncoding: 'ieee-p1363' });
    return `${signed}.${signature.toString('base64url')}`;
  }

  #change(authorities: readonly [...Authority[], Authority]): void {
    this.#authorities = authorities;
    this.#sequence++;
    this.#bundle = undefined;
  }

  #span(lifetime: Lifetime, ttlMs: number): { readonly notBeforeMs: number; readonly notAfterMs: number } {
    const nowMs = this.clock.now();
    const notAfterMs = lifetime.notAfterMs ?? nowMs + (lifetime.ttlMs ?? ttlMs);
    return { notBeforeMs: lifetime.notBeforeMs ?? Math.min(nowMs, notAfterMs) - MINUTE_MS, notAfterMs };
  }

  #newAuthority(): Authority {
    const root = this.#newCa(undefined);
    const intermediate = this.#options.intermediate ? this.#newCa(root) : undefined;
    return { root, intermediate, jwtKeyId: randomBytes(16).toString('base64url'), jwtKey: newKey() };
  }

  #newCa(issuer: Issuer | undefined): Issuer {
    const key = newKey();
    const serial = newSerial();
    const written = write({
      issuer,
      serial,
      // as SPIRE: two authorities never share a name
      subject: nameDer({ country: ['US'], organization: ['SPIFFE'], serialNumber: BigInt(`0x${serial.toString('hex')}`).toString() }),
      key,
      ...this.#span({ ttlMs: this.#options.authorityTtlMs }, YEAR_MS),
      extensions: [
        keyUsageExtension(['keyCertSign', 'cRLSign']),
        basicConstraintsExtension({}),
        altNames([this.trustDomain.id.toString()], [], false),
      ],
    });
    return { certificate: Certificate.parse(written), key };
  }
}

interface Contents {
  /** Undefined: signs itself. */
  readonly issuer: Issuer | undefined;
  readonly serial: Buffer;
  readonly subject: Buffer;
  readonly key: KeyObject;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly extensions: readonly Buffer[];
}

const VERSION_3 = der(0xa0, der(TAG.integer, Buffer.from([2])));

function write({ issuer, serial, subject, key, notBeforeMs, notAfterMs, extensions }: Contents): Buffer {
  const spki = readSpki(createPublicKey(key).export({ type: 'spki', format: 'der' }));
  const ski = createHash('sha1').update(spki.bits).digest();
  const algorithm = SIGNATURE_ALGORITHMS.ecdsaSha256.der;
  const tbs = der(
    TAG.sequence,
    VERSION_3,
    derUnsigned(serial),
    algorithm,
    issuer?.certificate.subject ?? subject,
    der(TAG.sequence, derTime(notBeforeMs), derTime(notAfterMs)),
    subject,
    spki.der,
    der(0xa3, der(TAG.sequence, skiExtension(ski), akiExtension(issuer?.certificate.ski ?? ski), ...extensions)),
  );
  return der(TAG.sequence, tbs, algorithm, derBits(sign('sha256', tbs, issuer?.key ?? key)));
}

function newKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey;
}

/** 127 random bits, so that the integer is positive; never zero. */
function newSerial(): Buffer {
  const serial = randomBytes(16);
  serial[0] = ((serial[0] as number) & 0x7f) | 0x40;
  return serial;
}
