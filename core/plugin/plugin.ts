/** What a plugin is: a value that says its kind, its name, its settings, and how it starts. */
import type { ZodType } from 'zod';
import type { Clock } from '../../spiffe/clock.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import type { Latest } from '../../spiffe/latest.ts';
import type { Log } from '../log.ts';
import type { AgentKeyManager, KeyManager } from './key-manager.ts';
import type { AgentNodeAttestor, NodeAttestor } from './node-attestor.ts';
import type { UpstreamAuthority } from './upstream-authority.ts';
import type { WorkloadAttestor } from './workload-attestor.ts';

/** Kind → what `start` gives. Both sides of node attestation are kinds of their own: they run in different programs. */
export interface Kinds {
  'server-node-attestor': NodeAttestor;
  'agent-node-attestor': AgentNodeAttestor;
  'workload-attestor': WorkloadAttestor;
  'server-key-manager': KeyManager;
  'agent-key-manager': AgentKeyManager;
  'upstream-authority': UpstreamAuthority;
}
export type Kind = keyof Kinds;

/** What the program lends to a plugin. */
export interface Host {
  readonly trustDomain: TrustDomain;
  readonly log: Log;
  readonly clock: Clock;
  /** Aborts when the program stops; a plugin's own loops end then. */
  readonly signal: AbortSignal;
  /** Counts the operator's wishes to read files again (SIGUSR1). */
  readonly reloads: Latest<number>;
  /** The join token that the operator gave to an agent, without white space around it; read anew at each call. Undefined: none was given. Servers lend none. */
  readonly joinToken?: () => Promise<string | undefined>;
}

export interface Plugin<K extends Kind = Kind, S = unknown> {
  readonly kind: K;
  /** As in the configuration: `"join_token"`. */
  readonly name: string;
  /** Of `plugin_data`, in the file's own snake_case; unknown keys are refused (`z.strictObject`). */
  readonly settings: ZodType<S>;
  /** Throws SETTINGS_INVALID when it cannot work; says what to do. */
  start(settings: S, host: Host): Promise<Kinds[K]>;
}

export function definePlugin<K extends Kind, S>(plugin: Plugin<K, S>): Plugin<K, S> {
  return plugin;
}
