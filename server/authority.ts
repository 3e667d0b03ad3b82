/** Who signs now: the active authorities, and the SVIDs they issue. Profile and lifetime are decided here, and only here. */
import { signJwtSvid } from '../spiffe/jwt/sign-jwt-svid.ts';
import { randomUUID } from 'node:crypto';
import { fail } from '../core/errors.ts';
import type { SigningKey } from '../core/plugin/key-manager.ts';
import { issueX509Ca, issueX509Svid } from '../core/x509/issue.ts';
import { keyTypeOf } from '../core/x509/key.ts';
import type { Subject, SubjectParts } from '../spiffe/x509/parts.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { type JwtAlgorithmName, jwtSignOptions } from '../spiffe/jwt/jwt-algorithm.ts';
import { type JwtSvid } from '../spiffe/jwt/jwt-svid.ts';

/** Start of validity: ten seconds ago, so that a peer whose clock runs a little behind ours accepts the SVID at once. The end is never moved for it. */
const BACKDATE_MS = 10_000;

/** An X.509 authority that can sign. */
export interface X509Authority {
  /** Hex of the subject key identifier. */
  readonly id: string;
  readonly key: SigningKey;
  /** The CA certificate, then its issuers up to but without the root: what an SVID carries behind the leaf. Empty when the CA is the root itself. */
  readonly chain: readonly Certificate[];
  readonly certificate: Certificate;
  readonly issuedAtMs: number;
  /** Of the first in the whole chain to end, the root too. */
  readonly notAfterMs: number;
  /** Hex SHA-256 of each root that it hangs on. */
  readonly rootsSha256: readonly string[];
  /** How many CAs, one below the other, the path lengths from here to the root allow. Left out: any number. */
  readonly casBelow?: number;
}

export interface JwtAuthority {
  /** The `kid`. */
  readonly id: string;
  readonly key: SigningKey;
  readonly issuedAtMs: number;
  readonly notAfterMs: number;
}

export interface AuthoritySettings {
  readonly trustDomain: TrustDomain;
  readonly defaultX509SvidTtlMs: number;
  readonly defaultJwtSvidTtlMs: number;
  /** Undefined: the default of X.509-SVIDs. */
  readonly agentTtlMs: number | undefined;
  readonly jwtIssuer: string | undefined;
  readonly disableJwtSvids: boolean;
}

export interface SignedX509Svid {
  /** DER; the leaf, then its issuers without the root. */
  readonly chainDer: readonly Buffer[];
  readonly certificate: Certificate;
  readonly notAfterMs: number;
}

export interface X509SvidRequest {
  readonly spiffeId: SpiffeId;
  readonly spkiDer: Buffer;
  /** 0: the server's default. */
  readonly ttlMs: number;
  readonly dnsNames?: readonly string[];
  readonly subject?: Subject;
}

/** What the rotation gives to sign with. */
export interface ActiveAuthorities {
  readonly x509: X509Authority | undefined;
  readonly jwt: JwtAuthority | undefined;
}

export class Authority {
  readonly settings: AuthoritySettings;
  readonly #active: ActiveAuthorities;
  readonly #clock: Clock;

  constructor(settings: AuthoritySettings, active: ActiveAuthorities, clock: Clock) {
    this.settings = settings;
    this.#active = active;
    this.#clock = clock;
  }

  /** Throws UNAVAILABLE while there is no authority that could sign (ID-28), and what the profile forbids. */
  async signX509Svid(request: X509SvidRequest): Promise<SignedX509Svid> {
    this.#checkOurs(request.spiffeId);
    const authority = this.x509();
    const now = this.#clock.now();
    const ttlMs = request.ttlMs || this.settings.defaultX509SvidTtlMs;
    const { certificate } = await issueX509Svid({
      issuer: { certificate: authority.certificate, key: authority.key },
      spkiDer: request.spkiDer,
      spiffeId: request.spiffeId,
      notBeforeMs: now - BACKDATE_MS,
      // no SVID outlives its issuer, nor anything above it
      notAfterMs: Math.min(now + ttlMs, authority.notAfterMs),
      ...(request.dnsNames && { dnsNames: request.dnsNames }),
      ...(request.subject && { subject: request.subject }),
    });
    return { chainDer: [certificate.raw, ...authority.chain.map((one) => one.raw)], certificate, notAfterMs: certificate.notAfterMs };
  }

  signAgentSvid(spiffeId: SpiffeId, spkiDer: Buffer): Promise<SignedX509Svid> {
    return this.signX509Svid({ spiffeId, spkiDer, ttlMs: this.settings.agentTtlMs ?? 0 });
  }

  /** A CA below ours, for a downstream server of the same trust domain. Throws FAILED_PRECONDITION where ours allows none below it. */
  async signDownstreamCa(request: {
    readonly spkiDer: Buffer;
    readonly ttlMs: number;
    readonly subject: SubjectParts;
  }): Promise<readonly Buffer[]> {
    const authority = this.x509();
    const now = this.#clock.now();
    if (authority.casBelow !== undefined && authority.casBelow < 1)
      throw fail('FAILED_PRECONDITION', `the path lengths of ${authority.certificate} and the CAs above it allow no CA below it`, {
        reason: 'X509_PATH_LEN',
      });
    const { certificate } = await issueX509Ca({
      issuer: { certificate: authority.certificate, key: authority.key },
      key: { spkiDer: request.spkiDer },
      trustDomain: this.settings.trustDomain,
      subject: { ...request.subject, organizationalUnit: [`DOWNSTREAM-${authority.chain.length + 1}`] },
      notBeforeMs: now - BACKDATE_MS,
      notAfterMs: Math.min(now + (request.ttlMs || this.settings.defaultX509SvidTtlMs), authority.notAfterMs),
    });
    return [certificate.raw, ...authority.chain.map((one) => one.raw)];
  }

  /** @param ttlMs 0: the server's default. Throws UNIMPLEMENTED when JWT-SVIDs are switched off. */
  async signJwtSvid(request: {
    readonly spiffeId: SpiffeId;
    readonly audience: readonly string[];
    readonly ttlMs: number;
    readonly jti: boolean;
  }): Promise<JwtSvid> {
    if (this.settings.disableJwtSvids) throw fail('UNIMPLEMENTED', 'JWT functionality is disabled');
    this.#checkOurs(request.spiffeId);
    const authority = this.#active.jwt;
    const now = this.#clock.now();
    if (!authority || authority.notAfterMs <= now) throw fail('UNAVAILABLE', 'JWT key is not available for signing');
    const alg = algorithmOf(authority.key);
    const iat = Math.floor(now / 1000);
    const exp = Math.floor(Math.min(now + (request.ttlMs || this.settings.defaultJwtSvidTtlMs), authority.notAfterMs) / 1000);
    return signJwtSvid(
      {
        alg,
        kid: authority.id,
        claims: {
          sub: String(request.spiffeId),
          aud: request.audience,
          exp,
          iat,
          ...(this.settings.jwtIssuer !== undefined && { iss: this.settings.jwtIssuer }),
          ...(request.jti && { jti: Buffer.from(randomUUID().replaceAll('-', ''), 'hex').toString('base64url') }),
        },
      },
      (data) => authority.key.sign(data, jwtSignOptions(alg)),
    );
  }

  /** The doors refuse it before; whoever forgets to still can't make us sign for another trust domain. */
  #checkOurs(spiffeId: SpiffeId): void {
    const { trustDomain } = this.settings;
    if (!spiffeId.memberOf(trustDomain))
      throw fail('REQUEST_INVALID', `${spiffeId} is not a member of trust domain ${trustDomain}`, { reason: 'ID_NOT_MEMBER' });
  }

  /** The authority that signs X.509 now. Throws UNAVAILABLE when there is none, or when it has ended. */
  x509(): X509Authority {
    const authority = this.#active.x509;
    if (!authority || authority.notAfterMs <= this.#clock.now()) throw fail('UNAVAILABLE', 'X509 CA is not available for signing');
    return authority;
  }
}

function algorithmOf(key: SigningKey): JwtAlgorithmName {
  switch (keyTypeOf(key.spkiDer)) {
    case 'ec-p256':
      return 'ES256';
    case 'ec-p384':
      return 'ES384';
    case 'rsa-2048':
    case 'rsa-4096':
      return 'RS256';
    case undefined:
      throw fail('INTERNAL', 'a JWT key of an unknown type');
  }
}
