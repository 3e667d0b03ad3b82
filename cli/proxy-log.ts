/** The log of a proxy: lines on standard output, without a library to load. What cannot be written is dropped, and counted: a reader who hangs must not stop connections. */
import { asText, flatten } from '../core/log-line.ts';
import type { Fields, Level, Log } from '../core/log.ts';
import type { Clock } from '../spiffe/clock.ts';

export interface ProxyLogOptions {
  readonly format: 'text' | 'json';
  /** Lines begin with syslog's priority, `<6>`. */
  readonly priorities: boolean;
  /** Nothing is written at all. */
  readonly silent: boolean;
  readonly clock: Clock;
  /** Default: standard output. */
  readonly out?: LineSink | undefined;
}

/** Where lines go: `process.stdout` is one. */
export interface LineSink {
  readonly writableLength: number;
  write(line: string): unknown;
}

export interface ProxyLog extends Log {
  /** A line with fields that only connections have. */
  line(level: Level, message: string, fields: Readonly<Record<string, unknown>>): void;
}

/** Of lines that wait for a reader. */
const KEPT_BYTES = 1024 * 1024;

/** syslog(3)'s numbers. */
const PRIORITY: Readonly<Record<Level, number>> = { panic: 0, fatal: 2, error: 3, warn: 4, info: 6, debug: 7, trace: 7 };

export function createProxyLog({ format, priorities, silent, clock, out = process.stdout }: ProxyLogOptions): ProxyLog {
  let dropped = 0;
  const line = (level: Level, message: string, fields: Readonly<Record<string, unknown>>) => {
    if (silent) return;
    if (out.writableLength > KEPT_BYTES) {
      dropped++;
      return;
    }
    const lost = dropped > 0 ? { dropped_lines: dropped } : {};
    dropped = 0;
    const data = {
      time: new Date(clock.now()).toISOString(),
      level: level === 'warn' ? 'warning' : level,
      msg: message,
      ...fields,
      ...lost,
    };
    out.write(`${priorities ? `<${PRIORITY[level]}>` : ''}${format === 'json' ? `${JSON.stringify(data)}\n` : asText(data)}`);
  };
  const make = (more: Fields): ProxyLog => {
    const say = (level: Level) => (message: string, fields?: Fields) => line(level, message, flatten({ ...more, ...fields }, false));
    return {
      error: say('error'),
      warn: say('warn'),
      info: say('info'),
      debug: () => {},
      trace: () => {},
      with: (fields) => make({ ...more, ...fields }),
      line,
    };
  };
  return make({});
}
