/** Where log lines go: pino, in SPIRE's two shapes (logrus text, JSON), to stdout or a file that can be opened anew. */
import { pino, type Level as PinoLevel } from 'pino';
import type { Clock } from '../spiffe/clock.ts';
import type { Latest } from '../spiffe/latest.ts';
import type { Fields, Level, Log } from './log.ts';
import { asText, flatten } from './log-line.ts';

export interface LogSettings {
  readonly level: Level;
  readonly format: 'text' | 'json';
  /** Undefined or '': stdout, or stderr where that belongs to somebody else. */
  readonly path?: string | undefined;
  readonly stderr?: boolean | undefined;
  /** SPIRE's log_source_location: file and line of each call. Costs a stack per line. */
  readonly sourceLocation?: boolean;
  readonly clock: Clock;
  /** Counts the wishes to open the file again (SIGUSR2), after a rotation by others. */
  readonly reopens?: Latest<number>;
}

/** A log whose level can be changed while the program runs. */
export interface AdjustableLog extends Log {
  level: Level;
  readonly launchLevel: Level;
}

/** pino knows no panic: nothing of ours is as bad. */
const PINO_LEVEL: Readonly<Record<Level, PinoLevel | 'silent'>> = {
  panic: 'silent',
  fatal: 'fatal',
  error: 'error',
  warn: 'warn',
  info: 'info',
  debug: 'debug',
  trace: 'trace',
};

/** Of lines that could not be written; what comes on top is lost. */
const KEPT_BYTES = 1024 * 1024;

export function createLog(settings: LogSettings): AdjustableLog {
  const { path, format, clock, reopens } = settings;
  const file = pino.destination({
    ...(path ? { dest: path, mkdir: true, append: true, mode: 0o640 } : { dest: settings.stderr ? 2 : 1 }),
    sync: true,
    maxLength: KEPT_BYTES,
  });
  // A full disk must not break those who have something to say: what could not be written is kept, and goes out before the next line that can.
  file.on('error', () => {});
  if (path && reopens) void follow(reopens, () => file.reopen());
  const out = format === 'json' ? file : { write: (line: string) => file.write(asText(JSON.parse(line) as Record<string, unknown>)) };
  const root = pino(
    {
      level: PINO_LEVEL[settings.level],
      base: null,
      timestamp: () => `,"time":"${new Date(clock.now()).toISOString()}"`,
      formatters: { level: (level) => ({ level: level === 'warn' ? 'warning' : level }) },
    },
    out,
  );
  const launchLevel = settings.level;
  let current = settings.level;

  const make = (more: Fields): AdjustableLog => {
    const say = (level: 'error' | 'warn' | 'info' | 'debug' | 'trace') => (message: string, fields?: Fields) => {
      if (!root.isLevelEnabled(level)) return;
      const data = fields ? { ...more, ...fields } : more;
      root[level](flatten(settings.sourceLocation ? { ...data, file: caller() } : data, root.isLevelEnabled('debug')), message);
    };
    return {
      error: say('error'),
      warn: say('warn'),
      info: say('info'),
      debug: say('debug'),
      trace: say('trace'),
      with: (fields) => make({ ...more, ...fields }),
      launchLevel,
      get level() {
        return current;
      },
      set level(level) {
        current = level;
        root.level = PINO_LEVEL[level];
      },
    };
  };
  return make({});
}

async function follow(reopens: Latest<number>, reopen: () => void): Promise<void> {
  const never = new AbortController().signal;
  const before = reopens.value;
  for await (const count of reopens.changes(never)) if (count !== before) reopen();
}

const OUR_OWN = /\/log-output\.[jt]s:/;

function caller(): string {
  const frame = (new Error().stack ?? '').split('\n').find((line, index) => index > 0 && !OUR_OWN.test(line)) ?? '';
  return /([^/\\(]+:\d+):\d+\)?$/.exec(frame)?.[1] ?? '';
}
