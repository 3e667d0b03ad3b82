/** What happens after files have changed: a command, a signal, a unit's reload, a request; one at a time, changes that come close together once. */
import { request } from 'node:http';
import { fail } from '../../core/errors.ts';
import type { Log } from '../../core/log.ts';
import { isStop } from '../../core/tasks.ts';
import type { Clock } from '../../spiffe/clock.ts';
import { Latest } from '../../spiffe/latest.ts';
import type { Change } from './keeper.ts';
import { followPidFile, signalByPidFile } from './pid-file.ts';
import { type Environment, environmentOf, runToEnd } from './program.ts';
import type { HookBlock } from './settings.ts';

export interface HookParts {
  readonly log: Log;
  readonly clock: Clock;
  readonly env: Environment;
  /** Told of each run, for metrics. */
  readonly told: (hook: string, result: 'success' | 'error') => void;
}

export class Hook {
  readonly name: string;
  readonly #block: HookBlock;
  readonly #parts: HookParts;
  /** What has changed since it last ran, by output; counted, so that it wakes. */
  readonly #due = new Map<string, Change>();
  readonly #changes = new Latest(0);
  #settling = new AbortController();

  constructor(name: string, block: HookBlock, parts: HookParts) {
    this.name = name;
    this.#block = block;
    this.#parts = parts;
  }

  /** Takes the change to heart if it is one of those that this hook is for. */
  hear(change: Change): void {
    const { outputs, kinds, events } = this.#block;
    if (outputs && !outputs.includes(change.output)) return;
    if (kinds && !kinds.includes(change.kind)) return;
    if (!events.includes(change.event)) return;
    // the newest one last
    this.#due.delete(change.output);
    this.#due.set(change.output, change);
    this.#changes.set(this.#changes.value + 1);
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#parts;
    for await (const _ of this.#changes.changes(signal)) {
      if (this.#due.size === 0) continue;
      // until it has been quiet for so long: a renewal of three outputs is one reload
      for (let seen = -1; seen !== this.#changes.value; ) {
        seen = this.#changes.value;
        await clock.sleep(this.#block.debounce, signal);
      }
      const changes = [...this.#due.values()];
      this.#due.clear();
      await this.#act(changes as [Change, ...Change[]], signal);
    }
  }

  async #act(changes: readonly [Change, ...Change[]], signal: AbortSignal): Promise<void> {
    const { log, told, clock } = this.#parts;
    const output = changes.map((one) => one.output).join(',');
    const startedMs = clock.monotonic();
    try {
      await this.#perform(changes, signal);
      told(this.name, 'success');
      log.info('Hook run', { hook: this.name, output, elapsed_ms: Math.round(clock.monotonic() - startedMs) });
    } catch (error) {
      if (isStop(error, signal)) throw error;
      told(this.name, 'error');
      log.error('Hook failed', { hook: this.name, output, error });
    }
  }

  async #perform(changes: readonly [Change, ...Change[]], signal: AbortSignal): Promise<void> {
    const { command, signal: name, pid_file: file, systemd_reload: unit, http_post: url, timeout } = this.#block;
    const { clock, env, log } = this.#parts;
    if (command) return await runToEnd(command, environmentOf(env, changes), timeout, clock, signal);
    if (unit !== undefined) return await runToEnd(['systemctl', 'reload', unit], env, timeout, clock, signal);
    if (url !== undefined) return await post(url, changes, timeout, clock, signal);
    if (name === undefined || file === undefined) return;
    const sent = name as NodeJS.Signals;
    const pid = await signalByPidFile(file, sent, clock, signal);
    log.debug('Process signalled', { hook: this.name, pid });
    this.#settling.abort();
    this.#settling = new AbortController();
    const settled = AbortSignal.any([signal, this.#settling.signal]);
    // beside what else there is to do; a newer renewal makes it needless
    void followPidFile(file, pid, sent, clock, settled, (later) => log.info('Successor signalled', { hook: this.name, pid: later })).catch(
      () => {},
    );
  }
}

/** Throws UNAVAILABLE unless the answer is a good one. */
function post(url: string, changes: readonly Change[], timeoutMs: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const over = new AbortController();
  const limit = AbortSignal.any([signal, over.signal]);
  const late = clock.sleep(timeoutMs, limit).then(
    () => over.abort(fail('DEADLINE_EXCEEDED', `no answer from ${url} within ${timeoutMs} ms`)),
    () => {},
  );
  const told = changes.map(({ event, output, kind, paths, spiffeId, expiresMs }) => ({
    event,
    output,
    kind,
    files: paths,
    spiffe_id: spiffeId,
    expires_at: expiresMs === undefined ? undefined : new Date(expiresMs).toISOString(),
  }));
  const body = JSON.stringify({ changes: told });
  const answered = new Promise<void>((resolve, reject) => {
    const sent = request(url, { method: 'POST', headers: { 'content-type': 'application/json' }, signal: limit }, (response) => {
      response.resume();
      const status = response.statusCode ?? 0;
      if (status >= 200 && status < 300) resolve();
      else reject(fail('UNAVAILABLE', `${url} answered with status ${status}`));
    });
    sent.once('error', (error) => reject(over.signal.aborted ? over.signal.reason : error));
    sent.end(body);
  });
  return answered.finally(() => {
    over.abort();
    return late;
  });
}
