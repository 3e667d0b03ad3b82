/** The signals of a proxy: reload, drain, force. */
import { hearSigusr1 } from '../core/native.ts';

export interface ProxySignals {
  /** Aborts on the first SIGTERM or SIGINT: accept no more, let connections end. */
  readonly stop: AbortSignal;
  /** Aborts on the second: end them. */
  readonly force: AbortSignal;
  /** The same as a first SIGTERM. */
  end(why: string): void;
  /** From now on `reload` is called at each SIGHUP and SIGUSR1; at once when there was one before. */
  onReload(reload: () => void): void;
}

export function watchProxySignals(): ProxySignals {
  const stop = new AbortController();
  const force = new AbortController();
  let asked = false;
  let reload: () => void = () => {
    asked = true;
  };
  const end = (why: string) => {
    if (stop.signal.aborted) force.abort(new Error(why));
    else stop.abort(new Error(why));
  };
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => end(`stopped by ${name}`));
  for (const name of ['SIGHUP', 'SIGUSR1'] as const) process.on(name, () => reload());
  // Node's own answer would be to die
  process.on('SIGUSR2', () => {});
  try {
    hearSigusr1();
  } catch {
    // without the native edge SIGUSR1 is never heard, SIGHUP is
  }
  return {
    stop: stop.signal,
    force: force.signal,
    end(why) {
      if (!stop.signal.aborted) stop.abort(new Error(why));
    },
    onReload(listener) {
      reload = listener;
      if (asked) listener();
    },
  };
}
