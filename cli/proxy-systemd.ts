/** A proxy under systemd: sockets that it opened for us, and the words that it waits for (sd_listen_fds(3), sd_notify(3)). */
import { fail } from '../core/errors.ts';
import { notifySystemd } from '../core/native.ts';
import type { Clock } from '../spiffe/clock.ts';

type Env = Readonly<Record<string, string | undefined>>;

/** The first descriptor that systemd hands on. */
const FIRST = 3;

/**
 * Gives the descriptor of the one socket of this name. Throws SETTINGS_INVALID when there is none, or several.
 * @param pid whom the sockets are for: the process that was started
 */
export function inheritedSockets(env: Env, pid: number): (name: string) => number {
  const count = env['LISTEN_PID'] === String(pid) && /^[0-9]{1,4}$/.test(env['LISTEN_FDS'] ?? '') ? Number(env['LISTEN_FDS']) : 0;
  const names = (env['LISTEN_FDNAMES'] ?? '').split(':');
  const sockets = Array.from({ length: count }, (_, index) => [names[index] || 'unknown', FIRST + index] as const);
  return (name) => {
    const found = sockets.filter(([known]) => known === name);
    const [only] = found;
    if (only && found.length === 1) return only[1];
    throw fail(
      'SETTINGS_INVALID',
      found.length > 1
        ? `systemd:${name}: systemd has opened ${found.length} sockets of this name: give each a name of its own (FileDescriptorName=)`
        : `systemd:${name}: systemd has opened no socket of this name${sockets.length === 0 ? ': LISTEN_FDS and LISTEN_PID name none for this process' : `, but ${sockets.map(([known]) => known).join(', ')}`}`,
    );
  };
}

/** Words to systemd; nothing is said, and nothing loaded, where nobody listens. */
export class Supervisor {
  readonly #env: Env;
  readonly #clock: Clock;

  constructor(env: Env, clock: Clock) {
    this.#env = env;
    this.#clock = clock;
  }

  ready(status: string): void {
    this.#say(`READY=1\nSTATUS=${status}`);
  }

  /** `ready` must follow. */
  reloading(): void {
    // the clock of the machine, not that of the process: systemd compares it with its own
    this.#say(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  stopping(): void {
    this.#say('STOPPING=1\nSTATUS=waiting for connections to end');
  }

  /** Says that we live, from the event loop, until the signal aborts: a loop that stands still says nothing. @param healthy asked each time */
  async watch(signal: AbortSignal, healthy: () => boolean = () => true): Promise<void> {
    const usec = Number(this.#env['WATCHDOG_USEC']);
    const pid = this.#env['WATCHDOG_PID'];
    if (!(usec > 0) || (pid !== undefined && pid !== String(process.pid))) return;
    while (!signal.aborted) {
      if (healthy()) this.#say('WATCHDOG=1');
      await this.#clock.sleep(usec / 3000, signal, { ref: false }).catch(() => {});
    }
  }

  #say(words: string): void {
    if (!this.#env['NOTIFY_SOCKET']) return;
    try {
      notifySystemd(words);
    } catch {
      // without the native edge nobody is told, and systemd says so
    }
  }
}
