/** A plugin with the settings that it was given, checked and not started yet: what a program gets from whoever read its settings file. */
import type { Host, Kind, Kinds } from './plugin.ts';

export interface ReadyPlugin<K extends Kind = Kind> {
  readonly kind: K;
  readonly name: string;
  /** Throws SETTINGS_INVALID when it cannot work; says what to do. */
  start(host: Host): Promise<Kinds[K]>;
}

/** Those of one kind, in the file's order. */
export function readyOf<K extends Kind>(ready: readonly ReadyPlugin[], kind: K): readonly ReadyPlugin<K>[] {
  return ready.filter((one): one is ReadyPlugin<K> => one.kind === kind);
}
