/** What a proxy's process runs: the proxy itself, and what is around it. Made of flags (cli/proxy-flags.ts) or of a file (settings-file.ts), and checked before it comes here. */
import type { StatusAddress } from './address.ts';
import type { ProxySettings } from './settings.ts';

/** ghostunnel's `--quiet`: what is not logged. */
export const QUIET = ['all', 'conns', 'conn-errs', 'handshake-errs'] as const;
export type Quiet = (typeof QUIET)[number];

export interface StatusSettings extends StatusAddress {
  readonly pprof: boolean;
  readonly shutdown: boolean;
  /** Where the backend's health is asked; undefined: a TCP connect. */
  readonly targetStatus: string | undefined;
}

export interface MetricsSettings {
  readonly prefix: string;
  readonly intervalMs: number;
  /** Pushed to: HOST:PORT, a URL. */
  readonly graphite: { readonly host: string; readonly port: number } | undefined;
  readonly url: string | undefined;
}

export interface LogSettings {
  readonly format: 'text' | 'json';
  /** Lines begin with `<6>`, as systemd's journal and `logger --prio-prefix` read it. */
  readonly priorities: boolean;
  readonly quiet: ReadonlySet<Quiet>;
  /** Lines about connections. */
  readonly connections: 'all' | 'errors' | 'off';
}

export interface ProcessSettings {
  readonly proxy: ProxySettings;
  /** A file; undefined: access flags alone decide. */
  readonly intentions: string | undefined;
  readonly status: StatusSettings | undefined;
  readonly metrics: MetricsSettings;
  readonly log: LogSettings;
  /** Whether the names of targets must be known at the start. */
  readonly resolve: boolean;
  readonly workers: number;
  /** To be told at the start. */
  readonly warnings: readonly string[];
}
