/** Whether the backend is well: by a URL that tells, or by connecting it. Asked at most once a second, however many ask us. */
import type { AlarmClock } from '../spiffe/clock.ts';

const ASK_MS = 5_000;
const KEPT_MS = 1_000;

export class BackendHealth {
  readonly #url: string | undefined;
  readonly #probe: (signal: AbortSignal) => Promise<void>;
  readonly #clock: AlarmClock;
  #asking: Promise<string | undefined> | undefined;
  #known: { readonly fault: string | undefined; readonly atMs: number } | undefined;

  /** @param probe connects it; throws why it can't */
  constructor(url: string | undefined, probe: (signal: AbortSignal) => Promise<void>, clock: AlarmClock) {
    this.#url = url;
    this.#probe = probe;
    this.#clock = clock;
  }

  /** What is wrong; undefined when nothing is. */
  fault(): Promise<string | undefined> {
    if (this.#known && this.#clock.monotonic() - this.#known.atMs < KEPT_MS) return Promise.resolve(this.#known.fault);
    this.#asking ??= this.#ask().finally(() => (this.#asking = undefined));
    return this.#asking;
  }

  async #ask(): Promise<string | undefined> {
    const limit = new AbortController();
    const callOff = this.#clock.after(ASK_MS, () => limit.abort(new Error(`no answer within ${ASK_MS / 1000} s`)));
    let fault: string | undefined;
    try {
      await (this.#url === undefined ? this.#probe(limit.signal) : askUrl(this.#url, limit.signal));
    } catch (error) {
      const told = limit.signal.aborted ? limit.signal.reason : error;
      fault = told instanceof Error ? told.message || ((told as NodeJS.ErrnoException).code ?? 'failed') : String(told);
    } finally {
      callOff();
    }
    this.#known = { fault, atMs: this.#clock.monotonic() };
    return fault;
  }
}

/** 2xx is well. Its body is not read, and redirections are not followed. */
async function askUrl(url: string, signal: AbortSignal): Promise<void> {
  const { get } = url.startsWith('https:') ? await import('node:https') : await import('node:http');
  const status = await new Promise<number>((resolve, reject) => {
    get(url, { signal, agent: false }, (response) => {
      response.on('error', () => {});
      response.destroy();
      resolve(response.statusCode ?? 0);
    }).on('error', reject);
  });
  if (status < 200 || status > 299) throw new Error(`${url} answered ${status}`);
}
