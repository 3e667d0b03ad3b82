/** When an SVID is renewed: at a point that is drawn once for each, so that many that were made together are not renewed together. */

export interface Lifetime {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export interface RenewalOptions {
  /** 0 to 1; default: drawn. */
  readonly random?: number;
  /** How long an SVID is to last after its renewal could have happened. Default: no target. */
  readonly targetMs?: number | undefined;
  /** When it was received, by our own clock; undefined: some time ago. */
  readonly receivedMs?: number;
}

const HOURS_12 = 12 * 3_600_000;
const MINUTES_10 = 600_000;
/** Servers date SVIDs back by so much, for those whose clocks are behind. It is no part of the lifetime: an SVID of 8 s would be due when it comes. */
const BACKDATE_MS = 10_000;

/**
 * Between 45 % and 55 % of the lifetime; with an availability target that leaves 12 hours of it, so much before the end, and up to ten minutes sooner.
 * Never before a quarter of what is left of a new one: where clocks differ, each would be due at once, and the server asked without end.
 */
export function renewAtMs(
  { notBeforeMs, notAfterMs }: Lifetime,
  { random = Math.random(), targetMs, receivedMs }: RenewalOptions = {},
): number {
  const whole = notAfterMs - notBeforeMs;
  const lifetime = whole > BACKDATE_MS ? whole - BACKDATE_MS : whole;
  const at =
    targetMs !== undefined && lifetime - targetMs > HOURS_12
      ? notAfterMs - targetMs - random * MINUTES_10
      : notAfterMs - lifetime * (0.45 + random * 0.1);
  return receivedMs === undefined ? at : Math.max(at, receivedMs + (notAfterMs - receivedMs) * 0.25);
}

/** Growing waits between tries: `firstMs`, half as much more each time, at most `mostMs`, a tenth up or down. */
export function backoffMs(failures: number, firstMs: number, mostMs: number, random: number = Math.random()): number {
  return Math.min(mostMs, firstMs * 1.5 ** Math.max(0, failures - 1)) * (0.9 + random * 0.2);
}
