/** The server's own X.509-SVID: what agents see when they connect. */
import { isStop } from '../core/tasks.ts';
import type { Log } from '../core/log.ts';
import { generateEcKey } from '../core/x509/key.ts';
import { createPublicKey } from 'node:crypto';
import { Certificate } from '../spiffe/x509/certificate.ts';
import type { Clock } from '../spiffe/clock.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { Latest } from '../spiffe/latest.ts';
import { X509Svid } from '../spiffe/x509/x509-svid.ts';
import type { Authority, X509Authority } from './authority.ts';

export interface OwnSvidParts {
  readonly authority: Authority;
  /** Another authority that signs means another SVID. */
  readonly activeX509: Latest<X509Authority | undefined>;
  readonly clock: Clock;
  readonly log: Log;
}

/** The wall clock may jump: nobody sleeps longer than this on its word. */
const LONGEST_SLEEP_MS = 10_000;

export class OwnSvid {
  readonly #parts: OwnSvidParts;
  readonly latest: Latest<X509Svid>;
  #authorityId: string;

  private constructor(parts: OwnSvidParts, first: X509Svid) {
    this.#parts = parts;
    this.latest = new Latest(first);
    this.#authorityId = parts.activeX509.value?.id ?? '';
  }

  static async create(parts: OwnSvidParts): Promise<OwnSvid> {
    return new OwnSvid(parts, await make(parts));
  }

  /** Makes a new one at half of its lifetime, and when another authority signs; until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { activeX509, clock, log } = this.#parts;
    for (;;) {
      const changed = new AbortController();
      const either = AbortSignal.any([signal, changed.signal]);
      const watching = this.#waitForOther(activeX509, either).then(
        () => changed.abort(),
        () => {},
      );
      const { notBeforeMs, notAfterMs } = this.latest.value;
      const left = (notBeforeMs + notAfterMs) / 2 - clock.now();
      await clock.sleep(Math.min(Math.max(left, 1_000), LONGEST_SLEEP_MS), either).catch(() => {});
      const now = changed.signal.aborted;
      changed.abort();
      await watching;
      signal.throwIfAborted();
      if (!now && clock.now() < (notBeforeMs + notAfterMs) / 2) continue;
      try {
        this.#authorityId = activeX509.value?.id ?? '';
        this.latest.set(await make(this.#parts));
        log.info('Server SVID rotated', { spiffe_id: String(this.latest.value.id), expires_at: new Date(this.latest.value.notAfterMs) });
      } catch (error) {
        if (isStop(error, signal)) throw error;
        log.error('Could not rotate server SVID', { error });
        await clock.sleep(1_000, signal);
      }
    }
  }

  async #waitForOther(activeX509: Latest<X509Authority | undefined>, signal: AbortSignal): Promise<void> {
    for await (const authority of activeX509.changes(signal)) if (authority && authority.id !== this.#authorityId) return;
  }
}

async function make({ authority }: OwnSvidParts): Promise<X509Svid> {
  const key = generateEcKey('ec-p256');
  const spkiDer = createPublicKey(key).export({ type: 'spki', format: 'der' });
  const { chainDer } = await authority.signX509Svid({
    spiffeId: SpiffeId.of(authority.settings.trustDomain, '/spire/server'),
    spkiDer,
    ttlMs: 0,
  });
  return X509Svid.of(
    chainDer.map((der) => Certificate.parse(der)),
    key,
  );
}
