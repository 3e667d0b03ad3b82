/** Node's inspector in a daemon: whoever reaches it owns every key in the process, so it stays shut. docs/decisions/inspector.md says how. */
import inspector from 'node:inspector';
import { fail } from '../core/errors.ts';

/** The switch of this Node that would open it, or undefined. */
export function inspectorAsked(
  execArgv: readonly string[] = process.execArgv,
  nodeOptions: string = process.env['NODE_OPTIONS'] ?? '',
): string | undefined {
  const found = [...execArgv, ...nodeOptions.split(/\s+/)].find(
    (word) => /^--inspect(-brk|-wait|-port)?(=|$)/.test(word) || word.startsWith('--debug'),
  );
  return found?.split('=')[0];
}

/**
 * Shuts it. For the first line of a daemon: a signal that came before our first handler may have opened it, and may do so again on
 * the next turns of the event loop, when Node gets round to it (on a Node without --disable-sigusr1; see cli/warifu.mjs).
 */
export function shutInspector(turns = 50): void {
  if (inspector.url() !== undefined) inspector.close();
  if (turns > 0) setImmediate(shutInspector, turns - 1).unref();
}

/** Throws SETTINGS_INVALID when this Node was started with `--inspect…` and the settings don't allow it; opens it when they do. */
export function checkInspector(allowed: boolean): void {
  const asked = inspectorAsked();
  if (asked === undefined) return;
  if (!allowed) {
    throw fail(
      'SETTINGS_INVALID',
      `Node was started with ${asked}, which hands every key in this process to whoever connects: take it out of NODE_OPTIONS and the command, or set insecure_allow_inspector = true`,
    );
  }
  inspector.open();
}
