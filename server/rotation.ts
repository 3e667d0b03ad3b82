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
import type { SubjectParts } from '../spiffe/x509/parts.ts';
import { Certificate } from '../spiffe/x509/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { Latest } from '../spiffe/latest.ts';
import { isSelfSigned, sameAuthority, verifyCertificatePath } from '../spiffe/x509/path.ts';
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
  /** What our bundle holds: the roots of the external PKI, or the intermediate below them that only signs for us. */
  readonly bundleAnchor: 'root' | 'intermediate';
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
  /** X.509: as the journal keeps it. */
  readonly chainDer: readonly Buffer[];
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
  #issuers: readonly Certificate[] = [];
  /** The upstream's certificates that sign for nobody else. */
  #ownIssuers: readonly Certificate[] = [];
  #failures = 0;
  #roots = new Set<string>();
  /** What the upstream told and we could not take over yet; each tick tries again. */
  #offered: DirectAuthority | undefined;
  #offeredRoots: readonly Buffer[] | undefined;
  /** Monotonic, direct mode: what is prepared signs from then on. Before, its new roots are on their way to those who will verify. */
  #activateFrom = 0;
  #turn: Promise<unknown> = Promise.resolve();
  /** Changes whenever another X.509 authority signs: the server's own SVID is made anew then. */
  readonly activeX509 = new Latest<X509Authority | undefined>(undefined);
  /** By which agents are to tell this trust domain's servers from others below the same root; each is told before it is used. */
  readonly announced = new Latest<readonly Certificate[]>([]);

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
    return this.#issuers;
  }

  #keep(journal: readonly JournalRecord[]): void {
    this.#journal = journal;
    this.#issuers = journal
      .filter((record) => record.kind === 'x509')
      .flatMap((record) => record.chainDer.slice(0, 1).map((der) => Certificate.parse(der)));
    this.#announce();
  }

  #announce(): void {
    const now = this.#parts.clock.now();
    const all = new Map([...this.#ownIssuers, ...this.#issuers].map((one) => [one.sha256, one]));
    const alive = [...all.values()].filter((one) => one.notAfterMs > now);
    const told = this.announced.value;
    if (alive.length === told.length && alive.every((one) => told.some((known) => known.equals(one)))) return;
    this.announced.set(alive);
  }

  /** Goes on with the authorities of before, or makes the first ones. When it resolves, something can be signed. */
  async start(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#parts;
    this.#keep(await this.#parts.store.journals.load());
    const { upstream } = this.#parts;
    if (upstream.mode === 'ca-below' && upstream.ownIssuers) {
      for await (const ders of upstream.ownIssuers(signal)) {
        this.#learnOwnIssuers(ders);
        break;
      }
    }
    const bundle = await this.#parts.store.bundles.get(this.#settings.trustDomain.name);
    const rootsDer = bundle?.x509Authorities.map(({ der }) => der) ?? [];
    for (const record of this.#journal.filter(({ notAfterMs, status }) => notAfterMs > clock.now() && status !== 'old'))
      this.#resume(record, rootsDer);
    if (this.#x509.active)
      log.info('X509 CA loaded', {
        authority_id: this.#x509.active.authority.id,
        expires_at: new Date(this.#x509.active.authority.notAfterMs),
      });
    if (upstream.mode === 'direct') {
      for await (const first of upstream.authorities(signal)) {
        this.#sayReplaced(first);
        await this.#prepareDirect(this.#anchored(first));
        await this.#activateX509();
        break;
      }
    } else if (!this.#x509.active) {
      // a crash between two records leaves one that is prepared and none that is active
      if (!this.#x509.prepared) await this.#prepareX509(signal);
      await this.#activateX509();
    }
    if (!this.#settings.disableJwtSvids && !this.#jwt.active) {
      if (!this.#jwt.prepared) await this.#prepareJwt();
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
      ...(this.#parts.upstream.mode === 'ca-below' && this.#parts.upstream.ownIssuers
        ? [(stop: AbortSignal) => this.#followOwnIssuers(stop)]
        : []),
      (stop) => this.#prune(stop),
    );
  }

  async #tick(signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.#parts.clock.sleep(this.#untilDue(), signal);
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

  /** To the next tick, or to what is due before it: short lifetimes leave no ten seconds to be late. */
  #untilDue(): number {
    const now = this.#parts.clock.now();
    const due: number[] = [];
    const add = ({ active, prepared }: Slots<Lifetime>) => {
      if (active) due.push((prepared ? activateAtMs : prepareAtMs)(active.authority) + 1);
    };
    if (this.#parts.upstream.mode === 'ca-below') add(this.#x509);
    if (!this.#settings.disableJwtSvids) add(this.#jwt);
    // what was due and failed is tried again at the ticks
    return Math.min(TICK_MS, ...due.map((at) => at - now).filter((left) => left > 0));
  }

  /** One look at the clock: prepares and activates what is due. */
  rotate(signal: AbortSignal): Promise<void> {
    return this.#alone(() => this.#rotate(signal));
  }

  async #rotate(signal: AbortSignal): Promise<void> {
    const now = this.#parts.clock.now();
    for (const slots of [this.#x509, this.#jwt])
      if (slots.prepared && slots.prepared.authority.notAfterMs <= now) slots.prepared = undefined;
    const x509 = this.#x509;
    if (this.#parts.upstream.mode === 'direct') {
      await this.#takeOver();
    } else {
      if (this.#offeredRoots) await this.#publishRoots(this.#offeredRoots);
      this.#offeredRoots = undefined;
      if (!x509.prepared && (!x509.active || now > prepareAtMs(x509.active.authority))) await this.#prepareX509(signal);
      if (x509.prepared && (!x509.active || now > activateAtMs(x509.active.authority))) await this.#activateX509();
    }
    if (this.#settings.disableJwtSvids) return;
    const { active } = this.#jwt;
    if (!this.#jwt.prepared && (!active || now > prepareAtMs(active.authority))) await this.#prepareJwt();
    if (this.#jwt.prepared && (!active || now > activateAtMs(active.authority))) await this.#activateJwt();
  }

  /** The tick and the upstream's news must not come between each other's steps. */
  #alone<T>(run: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(run);
    this.#turn = done.catch(() => {});
    return done;
  }

  /** A record of the journal whose key we still hold, and whose chain still leads to one of our roots. */
  #resume(record: JournalRecord, rootsDer: readonly Buffer[]): void {
    const { keys, upstream } = this.#parts;
    if (record.kind === 'x509') {
      if (upstream.mode === 'direct') return;
      const key = keys.get(`x509-CA-${record.slot}`);
      if (!key?.spkiDer.equals(record.spkiDer)) return;
      const roots = rootsDer.filter((der) => record.rootsSha256.includes(Certificate.parse(der).sha256));
      try {
        const authority = x509AuthorityOf(key, { chainDer: record.chainDer, rootsDer: roots }, record.issuedAtMs, this.#parts.clock.now());
        this.#x509[record.status === 'active' ? 'active' : 'prepared'] = { slot: record.slot, authority, chainDer: record.chainDer };
      } catch (error) {
        this.#parts.log.warn('X509 CA of before cannot be used any more', { authority_id: record.authorityId, error });
      }
    } else {
      const key = keys.get(`JWT-Signer-${record.slot}`);
      if (!key?.spkiDer.equals(record.spkiDer)) return;
      this.#jwt[record.status === 'active' ? 'active' : 'prepared'] = {
        slot: record.slot,
        authority: { id: record.authorityId, key, issuedAtMs: record.issuedAtMs, notAfterMs: record.notAfterMs },
        chainDer: [],
      };
    }
  }

  /** With `bundle_anchor = "intermediate"` the path ends at the external PKI's certificate that issued ours, or that we sign with; a root stays what it is. */
  #anchored<T extends X509CaChain>(given: T): T {
    if (this.#settings.bundleAnchor !== 'intermediate') return given;
    const at = this.#parts.upstream.mode === 'direct' ? 0 : 1;
    const anchor = given.chainDer[at];
    return anchor ? { ...given, chainDer: given.chainDer.slice(0, Math.max(at, 1)), rootsDer: [anchor] } : given;
  }

  async #prepareX509(signal: AbortSignal): Promise<void> {
    const { keys, upstream, clock, log } = this.#parts;
    if (upstream.mode !== 'ca-below') throw fail('INTERNAL', 'no CA of ours with an upstream that signs directly');
    const slot = otherThan(this.#x509.active?.slot);
    const key = await keys.generate(`x509-CA-${slot}`, this.#settings.caKeyType);
    const csr = await buildCaCsr({ key, trustDomain: this.#settings.trustDomain, subject: this.#settings.caSubject });
    const minted = this.#anchored(await upstream.mintX509Ca(csr, this.#settings.caTtlMs, signal));
    const authority = x509AuthorityOf(key, minted, clock.now(), clock.now());
    await this.#publishRoots(minted.rootsDer);
    await this.#record('x509', slot, 'prepared', authority, minted.chainDer, authority.rootsSha256);
    this.#x509.prepared = { slot, authority, chainDer: minted.chainDer };
    log.info('X509 CA prepared', { authority_id: authority.id, expires_at: new Date(authority.notAfterMs) });
  }

  async #activateX509(): Promise<void> {
    const { prepared } = this.#x509;
    if (!prepared) return;
    const { slot, authority, chainDer } = prepared;
    await this.#demote('x509', authority.id);
    await this.#record('x509', slot, 'active', authority, chainDer, authority.rootsSha256);
    this.#x509.active = prepared;
    this.#x509.prepared = undefined;
    this.activeX509.set(authority);
    this.#parts.log.info('X509 CA activated', { authority_id: authority.id, expires_at: new Date(authority.notAfterMs) });
  }

  /** The external intermediate itself shall sign. Over the key of before it is a renewal: the authority keeps its id and its slot. */
  async #prepareDirect(given: DirectAuthority): Promise<void> {
    const { clock, log } = this.#parts;
    const { active } = this.#x509;
    const authority = x509AuthorityOf(given.key, given, clock.now(), clock.now());
    const isNew = !this.#issuers.some((known) => sameAuthority(known, authority.certificate));
    const grew = await this.#publishRoots(given.rootsDer);
    this.#activateFrom = grew || isNew ? clock.monotonic() + TICK_MS : 0;
    const slot = active?.authority.id === authority.id ? active.slot : otherThan(active?.slot);
    await this.#keepSuperseded(authority);
    await this.#record('x509', slot, 'prepared', authority, given.chainDer, authority.rootsSha256);
    this.#x509.prepared = { slot, authority, chainDer: given.chainDer };
    log.info('X509 CA prepared', { authority_id: authority.id, expires_at: new Date(authority.notAfterMs) });
  }

  /** Agents that are not connected now, or were not while it happened, know only the authority of before. */
  #sayReplaced({ chainDer: [der] }: DirectAuthority): void {
    const before = this.#journal.find((record) => record.kind === 'x509' && record.status === 'active')?.chainDer[0];
    if (!der || !before || sameAuthority(Certificate.parse(der), Certificate.parse(before))) return;
    this.#parts.log.warn(
      'The issuing authority was replaced while the server was stopped: agents that only know the one before will not accept this server until they bootstrap anew',
      { subject: Certificate.parse(der).subjectText },
    );
  }

  /** Prepares what the upstream offered, and activates it at once, or after one tick when those who verify must hear of a new root or issuer first. */
  async #takeOver(): Promise<void> {
    const { clock } = this.#parts;
    const x509 = this.#x509;
    if (this.#offered) await this.#prepareDirect(this.#offered);
    this.#offered = undefined;
    const nobodySigns = !x509.active || x509.active.authority.notAfterMs <= clock.now();
    if (x509.prepared && (nobodySigns || clock.monotonic() >= this.#activateFrom)) await this.#activateX509();
  }

  /** The journal has one record per key. Under another name or other roots the one of before still has SVIDs below it that must be known as ours. */
  async #keepSuperseded({ id, certificate, rootsSha256 }: X509Authority): Promise<void> {
    const before = this.#journal.find((record) => record.kind === 'x509' && record.authorityId === id);
    const [first] = before?.chainDer ?? [];
    if (!before || !first) return;
    const old = Certificate.parse(first);
    if (old.subject.equals(certificate.subject) && before.rootsSha256.join() === rootsSha256.join()) return;
    await this.#save({ ...before, authorityId: `${id}:${old.sha256}`, status: 'old' });
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
    this.#jwt.prepared = { slot, authority, chainDer: [] };
    log.info('JWT key prepared', { authority_id: authority.id, expires_at: new Date(authority.notAfterMs) });
  }

  async #activateJwt(): Promise<void> {
    const { prepared } = this.#jwt;
    if (!prepared) return;
    await this.#demote('jwt', prepared.authority.id);
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
    this.#keep([...this.#journal.filter((one) => one.kind !== record.kind || one.authorityId !== record.authorityId), record]);
  }

  /** Every one that was active, but this one: it is about to be. */
  async #demote(kind: 'x509' | 'jwt', exceptId: string): Promise<void> {
    for (const record of this.#journal) {
      if (record.kind === kind && record.status === 'active' && record.authorityId !== exceptId)
        await this.#save({ ...record, status: 'old' });
    }
  }

  /** Gives whether there was one that the bundle did not have. */
  async #publishRoots(rootsDer: readonly Buffer[]): Promise<boolean> {
    const { trustDomain } = this.#settings;
    this.#roots = new Set(rootsDer.map((der) => Certificate.parse(der).sha256));
    const { changed } = await this.#parts.store.bundles.update(trustDomain.name, (bundle) => {
      const own = bundle ?? emptyBundle(trustDomain.name);
      const missing = rootsDer.filter((der) => !own.x509Authorities.some((known) => known.der.equals(der)));
      if (missing.length === 0 && bundle) return undefined;
      return { ...own, x509Authorities: [...own.x509Authorities, ...missing.map((der) => ({ der, tainted: false }))] };
    });
    return changed;
  }

  async #followUpstream(signal: AbortSignal): Promise<void> {
    const { upstream, log } = this.#parts;
    if (upstream.mode === 'direct') {
      for await (const told of upstream.authorities(signal)) {
        const authority = this.#anchored(told);
        const now = this.#x509.active;
        if (now && sameDers(now.chainDer, authority.chainDer) && now.authority.rootsSha256.join() === hashes(authority).join()) continue;
        this.#offered = authority;
        await this.#alone(() => this.#takeOver()).catch((error: unknown) =>
          log.error('Failed to take over the upstream authority', { error }),
        );
      }
    } else {
      for await (const roots of upstream.roots(signal)) {
        // of an intermediate that is the anchor itself we hear when it signs a CA
        if (this.#settings.bundleAnchor === 'intermediate') continue;
        this.#offeredRoots = roots;
        await this.#alone(async () => {
          await this.#publishRoots(roots);
          if (this.#offeredRoots === roots) this.#offeredRoots = undefined;
        }).catch((error: unknown) => log.error('Failed to publish the upstream roots', { error }));
      }
    }
  }

  async #followOwnIssuers(signal: AbortSignal): Promise<void> {
    const { upstream } = this.#parts;
    if (upstream.mode !== 'ca-below') return;
    for await (const ders of upstream.ownIssuers?.(signal) ?? []) this.#learnOwnIssuers(ders);
  }

  #learnOwnIssuers(ders: readonly Buffer[]): void {
    this.#ownIssuers = ders.map((der) => Certificate.parse(der));
    this.#announce();
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
    this.#keep(this.#journal.filter((record) => record.notAfterMs > clock.now() - 14 * DAY_MS));
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

function sameDers(a: readonly Buffer[], b: readonly Buffer[]): boolean {
  return a.length === b.length && a.every((der, i) => b[i]?.equals(der));
}

/** Throws SVID_UNTRUSTED, SVID_INVALID or SVID_EXPIRED when nobody could verify what this one signs, INTERNAL when the key is another one. */
function x509AuthorityOf(key: SigningKey, given: X509CaChain, issuedAtMs: number, nowMs: number): X509Authority {
  const all = given.chainDer.map((der) => Certificate.parse(der));
  const [certificate, ...above] = all;
  if (!certificate) throw fail('INTERNAL', 'an X.509 authority without a certificate');
  if (!certificate.spkiDer.equals(key.spkiDer)) throw fail('INTERNAL', 'the upstream authority certified another key than ours');
  // of two roots that both fit, the one that lasts
  const roots = given.rootsDer.map((der) => Certificate.parse(der)).sort((a, b) => b.notAfterMs - a.notAfterMs);
  const isAnchor = roots.some((root) => root.equals(certificate)) && !isSelfSigned(certificate);
  if (isAnchor && !certificate.isWithinValidity(nowMs)) throw fail('SVID_EXPIRED', `${certificate} is not valid now`);
  const path = isAnchor
    ? [certificate]
    : verifyCertificatePath(certificate, above, roots, { nowMs }).filter((one, i) => i === 0 || !one.equals(certificate));
  const casBelow = Math.min(...path.map((one, i) => (one.pathLen ?? Number.POSITIVE_INFINITY) - i));
  const rootsSha256 = hashes(given);
  return {
    id: (certificate.ski ?? keyId(certificate.spkiDer)).toString('hex'),
    key,
    certificate,
    // a root is in the bundle, and is not sent
    chain: all.filter((one) => !rootsSha256.includes(one.sha256)),
    issuedAtMs,
    notAfterMs: Math.min(...path.map((one) => one.notAfterMs)),
    rootsSha256,
    casBelow,
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
