/** How each output fares: whether its files are written, until when they are good, and what is in the way. */
import type { Kind } from './settings.ts';

/** What keeps an output from its next files. */
export interface Lack {
  readonly code: string;
  readonly why: string;
}

export interface OutputStatus {
  readonly name: string;
  readonly kind: Kind;
  /** As spiffe-helper says it; `failed`: the newest files could not be written. */
  state: 'unwritten' | 'written' | 'failed';
  /** Undefined when nothing is in the way of the newest files. */
  lack: Lack | undefined;
  /** Of what is on disk, milliseconds since 1970; undefined for bundles, which tell no end. */
  expiresMs: number | undefined;
  /** When that was written, or found to be there already. */
  writtenMs: number | undefined;
  /** How long it was good from then on. */
  lifetimeMs: number | undefined;
  writes: number;
  failures: number;
  /** Offers that were worse than what is there. */
  refusals: number;
  /** How near the end is: a warning, then an alarm. */
  alarm: 'none' | 'warning' | 'alarm';
  /** What names the files, for probes: `cert_dir/name` of tokens and bundles. */
  readonly path: string;
}

/** The part of the lifetime that is left when a person is told, and told loudly: renewal comes at half. */
const WARNING_PART = 1 / 3;
const ALARM_PART = 1 / 10;

export class Status {
  readonly outputs: readonly OutputStatus[];
  readonly #listeners = new Set<() => void>();

  constructor(outputs: readonly Pick<OutputStatus, 'name' | 'kind' | 'path'>[]) {
    this.outputs = outputs.map(({ name, kind, path }) => ({
      name,
      kind,
      path,
      state: 'unwritten',
      lack: undefined,
      expiresMs: undefined,
      writtenMs: undefined,
      lifetimeMs: undefined,
      writes: 0,
      failures: 0,
      refusals: 0,
      alarm: 'none',
    }));
  }

  of(name: string): OutputStatus {
    const found = this.outputs.find((one) => one.name === name);
    if (!found) throw new Error(`no output ${name}`);
    return found;
  }

  /** Every output has its files. */
  get complete(): boolean {
    return this.outputs.every(({ state }) => state === 'written');
  }

  /** No write has failed. */
  get live(): boolean {
    return this.outputs.every(({ state }) => state !== 'failed');
  }

  /** Every output has files that are good now, and the identity was not taken back. */
  ready(nowMs: number): boolean {
    return this.complete && this.outputs.every((one) => (one.expiresMs ?? Number.POSITIVE_INFINITY) > nowMs && one.lack?.code !== 'DENIED');
  }

  /** Called after each change that `changed` tells of; gives what takes that back. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

export function alarmOf({ expiresMs, lifetimeMs }: OutputStatus, nowMs: number): OutputStatus['alarm'] {
  if (expiresMs === undefined || lifetimeMs === undefined) return 'none';
  const left = expiresMs - nowMs;
  if (left <= lifetimeMs * ALARM_PART) return 'alarm';
  return left <= lifetimeMs * WARNING_PART ? 'warning' : 'none';
}

/** When `alarmOf` would say something else next. */
export function nextAlarmMs({ expiresMs, lifetimeMs }: OutputStatus, nowMs: number): number {
  if (expiresMs === undefined || lifetimeMs === undefined) return Number.POSITIVE_INFINITY;
  const marks = [WARNING_PART, ALARM_PART, 0].map((part) => expiresMs - lifetimeMs * part);
  return marks.find((mark) => mark > nowMs) ?? Number.POSITIVE_INFINITY;
}
