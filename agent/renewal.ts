/** When an SVID is renewed: at a point that is drawn once for each, so that many that were made together are not renewed together. */

export interface Lifetime {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

const HOURS_12 = 12 * 3_600_000;
const MINUTES_10 = 600_000;

/**
 * Between 45 % and 55 % of the lifetime; with an availability target that leaves 12 hours of it, so much before the end, and up to ten minutes sooner.
 * @param random 0 to 1
 * @param targetMs how long an SVID is to last after its renewal could have happened; undefined: no target
 */
export function renewAtMs({ notBeforeMs, notAfterMs }: Lifetime, random: number, targetMs?: number): number {
  const lifetime = notAfterMs - notBeforeMs;
  if (targetMs !== undefined && lifetime - targetMs > HOURS_12) return notAfterMs - targetMs - random * MINUTES_10;
  return notAfterMs - lifetime * (0.45 + random * 0.1);
}

/** Growing waits between tries: `firstMs`, half as much more each time, at most `mostMs`, a tenth up or down. */
export function backoffMs(failures: number, firstMs: number, mostMs: number, random: number = Math.random()): number {
  return Math.min(mostMs, firstMs * 1.5 ** Math.max(0, failures - 1)) * (0.9 + random * 0.2);
}
