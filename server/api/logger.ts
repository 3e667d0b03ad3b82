/** spire.api.server.logger.v1: the log level, while the server runs. */
import { fail } from '../../core/errors.ts';
import type { Level } from '../../core/log.ts';
import type { AdjustableLog } from '../../core/log-output.ts';
import type { Implementation } from '../../core/rpc-types.ts';
import type { LoggerDefinition } from '../../proto/gen/spire/api/server/logger/v1/logger.ts';
import { type Logger, LogLevel } from '../../proto/gen/spire/api/types/logger.ts';

const LEVELS: readonly (readonly [Level, LogLevel])[] = [
  ['panic', LogLevel.PANIC],
  ['fatal', LogLevel.FATAL],
  ['error', LogLevel.ERROR],
  ['warn', LogLevel.WARN],
  ['info', LogLevel.INFO],
  ['debug', LogLevel.DEBUG],
  ['trace', LogLevel.TRACE],
];

export function createLoggerApi(log: Pick<AdjustableLog, 'level' | 'launchLevel' | 'info'>): Implementation<typeof LoggerDefinition> {
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
