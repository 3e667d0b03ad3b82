/** The log level, while a program runs: spire.api.server.logger.v1 and spire.api.agent.logger.v1, whose messages are the same. */
import { fail } from './errors.ts';
import type { Level } from './log.ts';
import type { AdjustableLog } from './log-output.ts';
import { type Logger, LogLevel } from '../proto/gen/spire/api/types/logger.ts';

const LEVELS: readonly (readonly [Level, LogLevel])[] = [
  ['panic', LogLevel.PANIC],
  ['fatal', LogLevel.FATAL],
  ['error', LogLevel.ERROR],
  ['warn', LogLevel.WARN],
  ['info', LogLevel.INFO],
  ['debug', LogLevel.DEBUG],
  ['trace', LogLevel.TRACE],
];

/** What both services do. */
export interface LoggerApi {
  getLogger(): Promise<Logger>;
  setLogLevel(request: { readonly newLevel: LogLevel }): Promise<Logger>;
  resetLogLevel(): Promise<Logger>;
}

export function createLoggerApi(log: Pick<AdjustableLog, 'level' | 'launchLevel' | 'info'>): LoggerApi {
  const now = (): Logger => ({ currentLevel: wire(log.level), launchLevel: wire(log.launchLevel) });
  return {
    async getLogger() {
      return now();
    },
    async setLogLevel({ newLevel }) {
      if (newLevel === LogLevel.UNSPECIFIED) throw fail('REQUEST_INVALID', 'newLevel value cannot be LogLevel_UNSPECIFIED');
      const level = LEVELS.find(([, number]) => number === newLevel)?.[0];
      if (!level) throw fail('REQUEST_INVALID', 'unsupported log level');
      log.level = level;
      log.info('SetLogLevel Called', { level });
      return now();
    },
    async resetLogLevel() {
      log.level = log.launchLevel;
      log.info('ResetLogLevel Called', { level: log.launchLevel });
      return now();
    },
  };
}

function wire(level: Level): LogLevel {
  return LEVELS.find(([name]) => name === level)?.[1] ?? LogLevel.UNSPECIFIED;
}
