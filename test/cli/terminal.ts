/** A terminal for tests: keeps what was written, lends what is read. */
import type { Terminal } from '../../cli/terminal.ts';
import { type AlarmClock, systemClock } from '../../spiffe/clock.ts';

export class TestTerminal implements Terminal {
  stdout = '';
  stderr = '';
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: AlarmClock;
  readonly stop = new AbortController();
  readonly #stdin: string;

  constructor(options: { env?: Readonly<Record<string, string>>; stdin?: string; clock?: AlarmClock } = {}) {
    this.env = options.env ?? {};
    this.#stdin = options.stdin ?? '';
    this.clock = options.clock ?? systemClock;
  }

  get signal(): AbortSignal {
    return this.stop.signal;
  }

  // own properties: commands hand them on
  readonly out = (text: string): void => {
    this.stdout += text;
  };
  readonly err = (text: string): void => {
    this.stderr += text;
  };
  readonly input = (): Promise<Buffer> => Promise.resolve(Buffer.from(this.#stdin));
}
