/** `server logger …`: the log level of a running server. */
import { LoggerDefinition } from '../proto/gen/spire/api/server/logger/v1/logger.ts';
import { type Logger, LogLevel } from '../proto/gen/spire/api/types/logger.ts';
import { fail } from '../core/errors.ts';
import { defineCommand, messageOf } from './command.ts';
import { withServer } from './connection.ts';
import { output, text } from './flags.ts';
import { aligned, quoted } from './print.ts';
import { serverFlags } from './sockets.ts';

const { getLogger, setLogLevel, resetLogLevel } = LoggerDefinition.methods;
const LEVELS: Readonly<Record<string, LogLevel>> = {
  panic: LogLevel.PANIC,
  fatal: LogLevel.FATAL,
  error: LogLevel.ERROR,
  warn: LogLevel.WARN,
  warning: LogLevel.WARN,
  info: LogLevel.INFO,
  debug: LogLevel.DEBUG,
  trace: LogLevel.TRACE,
};
/** By number, as logrus calls them. */
const NAMES = ['', 'panic', 'fatal', 'error', 'warning', 'info', 'debug', 'trace'];

export const get = defineCommand({
  summary: 'Gets the logger details',
  flags: { output, ...serverFlags },
  run: ({ values }, terminal) =>
    withServer(values, terminal, async (server) => {
      const logger = await server.call(LoggerDefinition, getLogger, {}).catch(told('error fetching logger'));
      if (values.output === 'json') return await server.print(LoggerDefinition, getLogger, logger);
      terminal.out(loggerText(logger));
      return 0;
    }),
});

export const set = defineCommand({
  summary: 'Sets the logger details',
  flags: { level: text('The new log level, one of (panic, fatal, error, warn, info, debug, trace)', '', 'level'), output, ...serverFlags },
  async run({ values }, terminal) {
    if (values.level === '') throw fail('REQUEST_INVALID', 'a value (-level) must be set');
    const typed = values.level.toLowerCase();
    const newLevel = Object.hasOwn(LEVELS, typed) ? LEVELS[typed] : undefined;
    if (newLevel === undefined) throw fail('REQUEST_INVALID', `the value ${quoted(values.level)} is not a valid setting`);
    return await withServer(values, terminal, async (server) => {
      const logger = await server.call(LoggerDefinition, setLogLevel, { newLevel }).catch(told('failed to set log level'));
      if (values.output === 'json') return await server.print(LoggerDefinition, setLogLevel, logger);
      terminal.out(loggerText(logger));
      return 0;
    });
  },
});

export const reset = defineCommand({
  summary: 'Reset the logger details to launch level',
  flags: { output, ...serverFlags },
  run: ({ values }, terminal) =>
    withServer(values, terminal, async (server) => {
      const logger = await server.call(LoggerDefinition, resetLogLevel, {}).catch(told('failed to reset logger'));
      if (values.output === 'json') return await server.print(LoggerDefinition, resetLogLevel, logger);
      terminal.out(loggerText(logger));
      return 0;
    }),
});

function told(what: string): (error: unknown) => never {
  return (error) => {
    throw fail('UNAVAILABLE', `${what}: ${messageOf(error)}`, { cause: error });
  };
}

function loggerText({ currentLevel, launchLevel }: Logger): string {
  const name = (level: number, which: string) => {
    const found = NAMES[level];
    if (!found) throw fail('INTERNAL', `internal error: returned ${which} log level is undefined; please report this as a bug`);
    return found;
  };
  return `${aligned(
    [
      ['Logger Level', name(currentLevel, 'current')],
      ['Launch Level', name(launchLevel, 'launch')],
    ],
    13,
  )}\n`;
}
