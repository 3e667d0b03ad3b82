/** The helper's metrics, read from the state of its outputs whenever somebody asks. */
import type { OutputStatus, Status } from './status.ts';

export interface HelperMetrics {
  readonly contentType: string;
  text(): Promise<string>;
}

/** How often each hook ran, by how it ended. */
export type HookCounts = ReadonlyMap<string, { success: number; error: number }>;

const ALARMS = { none: 0, warning: 1, alarm: 2 } as const;
const seconds = (ms: number | undefined) => (ms === undefined ? undefined : ms / 1000);

/** Undefined: not told, as there is no such value. */
const OF_OUTPUTS: readonly (readonly [
  name: string,
  type: 'Gauge' | 'Counter',
  help: string,
  read: (one: OutputStatus) => number | undefined,
])[] = [
  ['output_expiry_timestamp_seconds', 'Gauge', 'When what is in the files ends, in seconds since 1970', (one) => seconds(one.expiresMs)],
  [
    'output_last_write_timestamp_seconds',
    'Gauge',
    'When the files were last written, or found to be good',
    (one) => seconds(one.writtenMs),
  ],
  ['output_written', 'Gauge', 'Whether the newest files are written', (one) => Number(one.state === 'written')],
  ['output_expiry_alarm', 'Gauge', '0; 1 when a third of the lifetime is left; 2 when a tenth is', (one) => ALARMS[one.alarm]],
  ['output_writes_total', 'Counter', 'How often files were written', (one) => one.writes],
  ['output_write_failures_total', 'Counter', 'How often files could not be written', (one) => one.failures],
  ['output_refusals_total', 'Counter', 'How often what came was worse than what was there, and not written', (one) => one.refusals],
];

export async function createMetrics(status: Status, hooks: HookCounts, isReady: () => boolean): Promise<HelperMetrics> {
  const client = await import('prom-client');
  const registry = new client.Registry();
  const registers = [registry];
  for (const [name, type, help, read] of OF_OUTPUTS) {
    const options = { name: `warifu_helper_${name}`, help, labelNames: ['output', 'kind'] as const, registers };
    const values = () =>
      status.outputs.flatMap((one) => {
        const value = read(one);
        return value === undefined ? [] : [[{ output: one.name, kind: one.kind }, value] as const];
      });
    if (type === 'Gauge') {
      new client.Gauge({
        ...options,
        collect() {
          this.reset();
          for (const [labels, value] of values()) this.set(labels, value);
        },
      });
    } else {
      new client.Counter({
        ...options,
        collect() {
          this.reset();
          for (const [labels, value] of values()) this.inc(labels, value);
        },
      });
    }
  }
  new client.Gauge({
    name: 'warifu_helper_ready',
    help: 'Whether every output has files that are good',
    registers,
    collect() {
      this.set(Number(isReady()));
    },
  });
  new client.Counter({
    name: 'warifu_helper_hook_runs_total',
    help: 'How often what follows a renewal ran, by how it ended',
    labelNames: ['hook', 'result'] as const,
    registers,
    collect() {
      this.reset();
      for (const [hook, { success, error }] of hooks) {
        this.inc({ hook, result: 'success' }, success);
        this.inc({ hook, result: 'error' }, error);
      }
    },
  });
  return { contentType: registry.contentType, text: () => registry.metrics() };
}
