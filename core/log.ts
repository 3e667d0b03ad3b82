/** One log line: a constant message, and data in typed fields. */

export type Level = 'panic' | 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace';

/** Everything that a log line may carry beside its message. Add a field here, once, with its meaning. Never keys, tokens, JWTs or CSRs. */
export interface Fields {
  readonly spiffe_id?: string;
  /** Of a caller, `type:value`; at debug level, and of callers without an identity. */
  readonly selectors?: readonly string[];
  /** Entries that a caller without an identity came nearest to, and what it lacks for each. */
  readonly nearest?: readonly string[];
  readonly agent_id?: string;
  readonly entry_id?: string;
  readonly trust_domain?: string;
  readonly service?: string;
  readonly method?: string;
  readonly address?: string;
  readonly path?: string;
  readonly plugin?: string;
  /** As it stands in a certificate or a setting. */
  readonly uri?: string;
  readonly pid?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** On whose account a caller is: its user and its container. */
  readonly party?: string;
  readonly count?: number;
  readonly size_bytes?: number;
  /** The time of the newest change that a restored datastore knows. */
  readonly restored_to?: Date;
  /** A log level. */
  readonly level?: Level;
  /** Wall time, milliseconds. */
  readonly elapsed_ms?: number;
  readonly expires_at?: Date;
  readonly authority_id?: string;
  /** Of a certificate, as text. */
  readonly subject?: string;
  /** `audit` for audit records. */
  readonly type?: string;
  /** Of an audit record: one call. */
  readonly request_id?: string;
  /** `success` or `error`. */
  readonly status?: string;
  /** As gRPC's Go library writes it. */
  readonly status_code?: string;
  readonly status_message?: string;
  readonly caller_addr?: string;
  readonly caller_id?: string;
  readonly caller_pid?: number;
  readonly caller_uid?: number;
  readonly caller_gid?: number;
  /** `tcp` or `unix`. */
  readonly network?: string;
  readonly version?: string;
  readonly data_dir?: string;
  /** Of the helper: a set of files that is written at once, by the name that its settings give it. */
  readonly output?: string;
  /** Of the helper: what happens after a renewal, by its name. */
  readonly hook?: string;
  /** Of a program that was started: its exit code, or the signal that ended it. */
  readonly exit?: string;
  /** Logged as its message and, at debug, its cause; never its stack above debug. */
  readonly error?: unknown;
}

export interface Log {
  error(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  debug(message: string, fields?: Fields): void;
  trace(message: string, fields?: Fields): void;
  /** A log whose lines also carry `fields`. */
  with(fields: Fields): Log;
}

export const silent: Log = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {}, trace: () => {}, with: () => silent };
