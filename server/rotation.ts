/**
 * The lives of our authorities: prepared, active, old. What is published comes before what is used, the journal before both,
 * so that a crash at any step leaves nothing signed by a key that nobody was told of.
 */
import { randomBytes } from 'node:crypto';
import { fail } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { KeyManager, KeyType, SigningKey } from '../core/plugin/key-manager.ts';
import type { DirectAuthority, UpstreamAuthority, X509CaChain } from '../core/plugin/upstream-authority.ts';
import { isStop, runAll } from '../core/tasks.ts';
import { buildCaCsr, keyId } from '../core/x509/issue.ts';
import type { SubjectParts } from '../core/x509/parts.ts';
import { Certificate } from '../spiffe/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { Latest } from '../spiffe/latest.ts';
import type { JwtAuthority, X509Authority } from './authority.ts';
import { emptyBundle } from './bundles.ts';
import type { JournalRecord, Store } from './store/store.ts';

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** SPIRE's rhythm. */
const TICK_MS = 10_000;
const PRUNE_MS = 6 * 60 * MINUTE_MS;
/** What has expired stays in the bundle this long: a peer's clock may be behind. */
const LINGER_MS = DAY_MS;

/** When the successor is made, and when it takes over (SPIRE's fractions of the lifetime). */
export function prepareAtMs({ issuedAtMs, notAfterMs }: Lifetime): number {
  return notAfterMs - Math.min((notAfterMs - issuedAtMs) / 2, 30 * DAY_MS);
}
export function activateAtMs({ issuedAtMs, notAfterMs }: Lifetime): number {
  return notAfterMs - Math.min((notAfterMs - issuedAtMs) / 6, 7 * DAY_MS);
}
interface Lifetime {
  readonly issuedAtMs: number;
  readonly notAfterMs: number;
}

export interface RotationSettings {
  readonly trustDomain: TrustDomain;
  readonly caTtlMs: number;
  readonly caKeyType: KeyType;
  readonly jwtKeyType: KeyType;
  readonly caSubject: SubjectParts;
  readonly disableJwtSvids: boolean;
}

export interface RotationParts {
  readonly store: Pick<Store, 'bundles' | 'journals'>;
  readonly keys: KeyManager;
  readonly upstream: UpstreamAuthority;
  readonly clock: Clock;
  readonly log: Log;
}

type Slot = 'A' | 'B';
interface Held<T> {
  readonly slot: Slot;
  readonly authority: T;
}
interface Slots<T> {
  active: Held<T> | undefined;
  prepared: Held<T> | undefined;
}

export class Rotation {
  readonly #settings: RotationSettings;
  readonly #parts: RotationParts;
  readonly #x509: Slots<X509Authority> = { active: undefined, prepared: undefined };
  readonly #jwt: Slots<JwtAuthority> = { active: undefined, prepared: undefined };
  #journal: readonly JournalRecord[] = [];
  #failures = 0;
  #roots = new Set<string>();
  /** Changes whenever another X.509 authority signs: the server's own SVID is made anew then. */
  readonly activeX509 = new Latest<X509Authority | undefined>(undefined);

  constructor(settings: RotationSettings, parts: RotationParts) {
    this.#settings = settings;
    this.#parts = parts;
  }

  get x509(): X509Authority | undefined {
    return this.#x509.active?.authority;
  }

  get jwt(): JwtAuthority | undefined {
    return this.#jwt.active?.authority;
  }

  /** SPIRE's sign of illness: more than ten rotations failed one after the other. */
  get healthy(): boolean {
    return this.#failures <= 10;
  }

  /** Every certificate of this trust domain's journal that may have issued something still alive: our own, told from a sibling's under the same root. */
  issuers(): readonly Certificate[] {
    return this.#journal
      .filter((record) => record.kind === 'x509')
      .flatMap((record) => record.chainDer.slice(0, 1).map((der) => Certificate.parse(der)));
  }

  /** Goes on with the authorities of before, or makes the first ones. When it resolves, something can be signed. */
  async start(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#parts;
    this.#journal = await this.#parts.store.journals.load();
    for (const record of this.#journal.filter(({ notAfterMs, status }) => notAfterMs > clock.now() && status !== 'old'))
      this.#resume(record);
    if (this.#x509.active)
      log.info('X509 CA loaded', {
        authority_id: this.#x509.active.authority.id,
        expires_at: new Date(this.#x509.active.authority.notAfterMs),
      });
    if (this.#parts.upstream.mode === 'direct') {
      for await (const first of this.#parts.upstream.authorities(signal)) {
        await this.#adopt(first);
        break;
      }
    } else if (!this.#x509.active) {
      await this.#prepareX509(signal);
      await this.#activateX509();
    }
    if (!this.#settings.disableJwtSvids && !this.#jwt.active) {
      await this.#prepareJwt();
      await this.#activateJwt();
    }
    this.activeX509.set(this.x509);
  }

  /** Until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await runAll(
      signal,
      (stop) => this.#tick(stop),
      (stop) => this.#followUpstream(stop),
      (stop) => this.#prune(stop),
    );
  }

  async #tick(signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.#parts.clock.sleep(TICK_MS, signal);
      try {
        await this.rotate(signal);
        this.#failures = 0;
      } catch (error) {
        if (isStop(error, signal)) throw error;
        this.#failures++;
        this.#parts.log.error('Failed to rotate CA', { error });
      }
    }
  }

  /** One look at the clock: prepares and activates what is due. */
  async rotate(signal: AbortSignal): Promise<void> {
    const now = this.#parts.clock.now();
    if (this.#parts.upstream.mode === 'ca-below') {
      const { active } = this.#x509;
      if (!this.#x509.prepared && (!active || now > prepareAtMs(active.authority))) await this.#prepareX509(signal);
      if (this.#x509.prepared && (!active || now > activateAtMs(active.authority))) await this.#activateX509();
    }
    if (this.#settings.disableJwtSvids) return;
    const { active } = this.#jwt;
    if (!this.#jwt.prepared && (!active || now > prepareAtMs(active.authority))) await this.#prepareJwt();
    if (this.#jwt.prepared && (!active || now > activateAtMs(active.authority))) await this.#activateJwt();
  }

  /** A record of the journal whose key we still hold. */
  #resume(record: JournalRecord): void {
    const { keys, upstream } = this.#parts;
    if (record.kind === 'x509') {
      if (upstream.mode === 'direct') return;
      const key = keys.get(`x509-CA-${record.slot}`);
      if (!key?.spkiDer.equals(record.spkiDer)) return;
      this.#x509[record.status === 'active' ? 'active' : 'prepared'] = {
        slot: record.slot,
        authority: x509AuthorityOf(key, record.chainDer, record.rootsSha256, record.issuedAtMs),
      };
    } else {
      const key = keys.get(`JWT-Signer-${record.slot}`);
      if (!key?.spkiDer.equals(record.spkiDer)) return;
      this.#jwt[record.status === 'active' ? 'active' : 'prepared'] = {
        slot: record.slot,
        authority: { id: record.authorityId, key, issuedAtMs: record.issuedAtMs, notAfterMs: record.notAfterMs },
      };
    }
  }

  async #prepareX509(signal: AbortSignal): Promise<void> {
    const { keys, upstream, clock, log } = this.#parts;
    if (upstream.mode !== 'ca-below') throw fail('INTERNAL', 'no CA of ours with an upstream that signs directly');
    const slot = otherThan(this.#x509.active?.slot);
    const key = await keys.generate(`x509-CA-${slot}`, this.#settings.caKeyType);
    const csr = await buildCaCsr({ key, trustDomain: this.#settings.trustDomain, subject: this.#settings.caSubject });
    const minted = await upstream.mintX509Ca(csr, this.#settings.caTtlMs, signal);
    const authority = x509AuthorityOf(key, minted.chainDer, hashes(minted), clock.now());
    if (!authority.certificate.spkiDer.equals(key.spkiDer))
      throw fail('INTERNAL', 'the upstream authority certified another key than ours');
    await this.#publishRoots(minted.rootsDer);
    await this.#record('x509', slot, 'prepared', authority, minted.chainDer, authority.rootsSha256);
    this.#x509.prepared = { slot, authority };
    log.info('X509 CA prepared', { authority_id: authority.id, expires_at: new Date(authority.notAfterMs) });
  }

  async #activateX509(): Promise<void> {
    const { prepared, active } = this.#x509;
    if (!prepared) return;
    await this.#demote('x509', active?.authority.id);
    const chainDer = prepared.authority.chain.map((one) => one.raw);
    await this.#record('x509', prepared.slot, 'active', prepared.authority, chainDer, prepared.authority.rootsSha256);
    this.#x509.active = prepared;
    this.#x509.prepared = undefined;
    this.activeX509.set(prepared.authority);
    this.#parts.log.info('X509 CA activated', { authority_id: prepared.authority.id, expires_at: new Date(prepared.authority.notAfterMs) });
  }

  /** The external intermediate itself signs: prepared once its roots are published, active right after that push. Over the same key it is a renewal in place. */
  async #adopt(given: DirectAuthority): Promise<void> {
    const { clock, log } = this.#parts;
    const before = this.#x509.active;
    const authority = x509AuthorityOf(given.key, given.chainDer, hashes(given), clock.now());
    await this.#publishRoots(given.rootsDer);
    const slot = before?.authority.id === authority.id ? before.slot : otherThan(before?.slot);
    await this.#record('x509', slot, 'prepared', authority, given.chainDer, authority.rootsSha256);
    if (before && before.authority.id !== authority.id) await this.#demote('x509', before.authority.id);
    await this.#record('x509', slot, 'active', authority, given.chainDer, authority.rootsSha256);
    this.#x509.active = { slot, authority };
    this.activeX509.set(authority);
    log.info('X509 CA activated', { authority_id: authority.id, expires_at: new Date(authority.notAfterMs) });
  }

  async #prepareJwt(): Promise<void> {
    const { keys, clock, store, log } = this.#parts;
    const slot = otherThan(this.#jwt.active?.slot);
    const key = await keys.generate(`JWT-Signer-${slot}`, this.#settings.jwtKeyType);
    const now = clock.now();
    const authority: JwtAuthority = { id: newKeyId(), key, issuedAtMs: now, notAfterMs: now + this.#settings.caTtlMs };
    const published = { keyId: authority.id, spkiDer: key.spkiDer, notAfterMs: authority.notAfterMs, tainted: false };
    await store.bundles.update(this.#settings.trustDomain.name, (bundle) => {
      const own = bundle ?? emptyBundle(this.#settings.trustDomain.name);
      return { ...own, jwtAuthorities: [...own.jwtAuthorities, published] };
    });
    await this.#record('jwt', slot, 'prepared', authority, [], []);
    this.#jwt.prepared = { slot, authority };
    log.info('JWT key prepared', { authority_id: authority.id, expires_at: new Date(authority.notAfterMs) });
  }

  async #activateJwt(): Promise<void> {
    const { prepared, active } = this.#jwt;
    if (!prepared) return;
    await this.#demote('jwt', active?.authority.id);
    await this.#record('jwt', prepared.slot, 'active', prepared.authority, [], []);
    this.#jwt.active = prepared;
    this.#jwt.prepared = undefined;
    this.#parts.log.info('JWT key activated', { authority_id: prepared.authority.id, expires_at: new Date(prepared.authority.notAfterMs) });
  }

  async #record(
    kind: 'x509' | 'jwt',
    slot: Slot,
    status: JournalRecord['status'],
    authority: X509Authority | JwtAuthority,
    chainDer: readonly Buffer[],
    rootsSha256: readonly string[],
  ): Promise<void> {
    const { issuedAtMs, notAfterMs, id, key } = authority;
    await this.#save({ kind, slot, status, authorityId: id, issuedAtMs, notAfterMs, chainDer, rootsSha256, spkiDer: key.spkiDer });
  }

  async #save(record: JournalRecord): Promise<void> {
    await this.#parts.store.journals.save(record);
    this.#journal = [...this.#journal.filter((one) => one.kind !== record.kind || one.authorityId !== record.authorityId), record];
  }

  async #demote(kind: 'x509' | 'jwt', authorityId: string | undefined): Promise<void> {
    for (const record of this.#journal) {
      if (record.kind === kind && record.status === 'active' && (authorityId === undefined || record.authorityId === authorityId))
        await this.#save({ ...record, status: 'old' });
    }
  }

  async #publishRoots(rootsDer: readonly Buffer[]): Promise<void> {
    const { trustDomain } = this.#settings;
    this.#roots = new Set(rootsDer.map((der) => Certificate.parse(der).sha256));
    await this.#parts.store.bundles.update(trustDomain.name, (bundle) => {
      const own = bundle ?? emptyBundle(trustDomain.name);
      const missing = rootsDer.filter((der) => !own.x509Authorities.some((known) => known.der.equals(der)));
      if (missing.length === 0 && bundle) return undefined;
      return { ...own, x509Authorities: [...own.x509Authorities, ...missing.map((der) => ({ der, tainted: false }))] };
    });
  }

  async #followUpstream(signal: AbortSignal): Promise<void> {
    const { upstream, log } = this.#parts;
    if (upstream.mode === 'direct') {
      for await (const authority of upstream.authorities(signal)) {
        const now = this.#x509.active?.authority;
        const [first] = authority.chainDer;
        if (first && now?.certificate.raw.equals(first) && now.rootsSha256.join() === hashes(authority).join()) continue;
        await this.#adopt(authority).catch((error: unknown) => log.error('Failed to take over the upstream authority', { error }));
      }
    } else {
      for await (const roots of upstream.roots(signal)) {
        await this.#publishRoots(roots).catch((error: unknown) => log.error('Failed to publish the upstream roots', { error }));
      }
    }
  }

  async #prune(signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.prune().catch((error: unknown) => this.#parts.log.error('Failed to prune the bundle', { error }));
      await this.#parts.clock.sleep(PRUNE_MS, signal, { ref: false });
    }
  }

  /** Takes from the bundle what nothing alive hangs on any more; never the last X.509 authority. */
  async prune(): Promise<void> {
    const { store, clock } = this.#parts;
    const before = clock.now() - LINGER_MS;
    await store.bundles.update(this.#settings.trustDomain.name, (bundle) => {
      if (!bundle) return undefined;
      const jwtAuthorities = bundle.jwtAuthorities.filter((one) => one.notAfterMs > before);
      const x509Authorities = bundle.x509Authorities.filter(({ der }) => this.#isNeeded(Certificate.parse(der), before));
      const fewer = jwtAuthorities.length < bundle.jwtAuthorities.length || x509Authorities.length < bundle.x509Authorities.length;
      return fewer && x509Authorities.length > 0 ? { ...bundle, jwtAuthorities, x509Authorities } : undefined;
    });
    await store.journals.prune(clock.now() - 14 * DAY_MS);
    this.#journal = this.#journal.filter((record) => record.notAfterMs > clock.now() - 14 * DAY_MS);
  }

  /** A root stays while it is the upstream's, or while something issued below it may live. One that we know nothing of stays until it expires. */
  #isNeeded(root: Certificate, beforeMs: number): boolean {
    if (this.#roots.has(root.sha256)) return true;
    const below = this.#journal.filter((record) => record.kind === 'x509' && record.rootsSha256.includes(root.sha256));
    return below.length === 0 ? root.notAfterMs > beforeMs : below.some((record) => record.notAfterMs > beforeMs);
  }
}

function otherThan(slot: Slot | undefined): Slot {
  return slot === 'A' ? 'B' : 'A';
}

function hashes({ rootsDer }: X509CaChain): readonly string[] {
  return rootsDer.map((der) => Certificate.parse(der).sha256);
}

function x509AuthorityOf(key: SigningKey, chainDer: readonly Buffer[], rootsSha256: readonly string[], issuedAtMs: number): X509Authority {
  const all = chainDer.map((der) => Certificate.parse(der));
  const [certificate] = all;
  if (!certificate) throw fail('INTERNAL', 'an X.509 authority without a certificate');
  return {
    id: (certificate.ski ?? keyId(certificate.spkiDer)).toString('hex'),
    key,
    certificate,
    // a root is in the bundle, and is not sent
    chain: all.filter((one) => !rootsSha256.includes(one.sha256)),
    issuedAtMs,
    notAfterMs: Math.min(...all.map((one) => one.notAfterMs)),
    rootsSha256,
  };
}

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/** 32 random letters and digits, as SPIRE's. */
function newKeyId(): string {
  let id = '';
  while (id.length < 32) {
    // what would make some letters likelier is thrown away
    for (const byte of randomBytes(48)) if (byte < 248 && id.length < 32) id += LETTERS[byte % 62];
  }
  return id;
}
