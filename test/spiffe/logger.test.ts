/** Loggers that the SDK accepts. */
import pino from 'pino';
import { expect, test } from 'vitest';
import { fieldsFirst } from '../../spiffe/logger.ts';

test('pino, whose fields come first, keeps them', () => {
  const lines: string[] = [];
  const log = fieldsFirst(pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) }));
  for (const level of ['debug', 'info', 'warn', 'error'] as const) log[level](`at ${level}`, { address: '127.0.0.1' });
  log.info('nothing more');
  expect(lines.map((line) => JSON.parse(line) as Record<string, unknown>)).toMatchObject([
    ...['debug', 'info', 'warn', 'error'].map((level) => ({ msg: `at ${level}`, address: '127.0.0.1' })),
    { msg: 'nothing more' },
  ]);
});
