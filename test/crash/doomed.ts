/** Processes that end by SIGKILL at one place of their work. */
import { join } from 'node:path';
import { expect } from 'vitest';
import { Daemon } from '../e2e/daemon.ts';
import { type Agent, type House, ROOT, WARIFU } from '../e2e/house.ts';

/** See kill-at.mjs. */
export interface Place {
  readonly on: 'sql' | 'exec' | 'rename' | 'sign' | 'write';
  readonly match?: string;
  readonly arm?: string;
  readonly at?: 'before' | 'after';
  readonly nth?: number;
}

const [node = '', ...rest] = WARIFU;
const preload = ['--import', join(ROOT, 'test', 'crash', 'kill-at.mjs')];

export const doomedServer = (house: House, place: Place) =>
  doomed('doomed server', ['server', 'run', '-config', house.serverConf], house, place);
export const doomedAgent = (house: House, agent: Agent, place: Place) =>
  doomed('doomed agent', ['agent', 'run', '-config', agent.conf], house, place);

/** Another program of our own, such as `migrate.ts`. */
export const doomedScript = (script: string, args: readonly string[], place: Place) =>
  new Daemon(script, [node, ...preload, join(ROOT, 'test', 'crash', script), ...args], { env: { WARIFU_KILL_AT: JSON.stringify(place) } });

function doomed(name: string, args: readonly string[], house: House, place: Place): Daemon {
  return new Daemon(name, [node, ...preload, ...rest, ...args], { cwd: house.dir, env: { WARIFU_KILL_AT: JSON.stringify(place) } });
}

/** It must have come to that place: a test whose process ended otherwise, or never came there, shows nothing. */
export async function diedThere(daemon: Daemon, withinMs = 30_000): Promise<void> {
  const late = new Promise<'late'>((done) => setTimeout(done, withinMs, 'late').unref());
  const end = await Promise.race([daemon.exited, late]);
  if (end === 'late') {
    await daemon.kill();
    throw new Error(`${daemon.name} never came to the place where it was to end:\n${daemon.tail()}`);
  }
  expect(end, daemon.tail()).toEqual({ code: null, signal: 'SIGKILL' });
}
