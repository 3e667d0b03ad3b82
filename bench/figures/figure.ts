/** What the figures share: the option that names the program, the statistics, the table, and a process's CPU time. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { WARIFU } from '../../test/e2e/house.ts';

/** One line of a table: what was measured, what it was, and what it must be. */
export interface Row {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** The most it may be; none where it is only told. */
  readonly limit?: number;
}

/** How the program is started: `--program FILE` names another `warifu.mjs`, such as an installed one; the default is the checkout's sources. */
export function program(): readonly string[] {
  const { values } = parseArgs({ options: { program: { type: 'string' } }, strict: false });
  return typeof values['program'] === 'string' ? [process.execPath, resolve(values['program'])] : WARIFU;
}

/** Runs the figure when its file is the program itself, prints its table, and exits 1 when a limit is exceeded. */
export async function main(url: string, figure: (program: readonly string[]) => Promise<Row[]>): Promise<void> {
  if (url !== pathToFileURL(process.argv[1] ?? '').href) return;
  const rows = await figure(program());
  print(rows);
  if (rows.some(({ value, limit }) => limit !== undefined && value > limit)) process.exitCode = 1;
}

export function print(rows: readonly Row[]): void {
  const shown = (value: number) => (value >= 100 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toFixed(3));
  const table = rows.map(({ what, value, unit, limit }) => [
    what,
    `${shown(value)} ${unit}`,
    limit === undefined ? '' : `${value <= limit ? 'ok' : 'TOO MUCH'}, at most ${limit} ${unit}`,
  ]);
  const widths = [0, 1, 2].map((column) => Math.max(...table.map((cells) => cells[column]?.length ?? 0)));
  for (const cells of table)
    console.log(
      cells
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('   ')
        .trimEnd(),
    );
}

/** The value below which `share` of the values lie (0.5: the median). */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** Milliseconds for what `work` takes. */
export async function wall(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

const TICK_MS = 1000 / Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

/** User and system time that a process has used until now, all its threads, in milliseconds; a tick (10 ms) is the finest it knows. */
export function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // the name may hold spaces and parentheses; behind the last one come state (3), ppid (4) …, utime (14), stime (15)
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

/** Waits until the process has used no CPU for `forMs`: what was asked of it is done. At most 30 s. */
export async function quiet(pid: number, forMs = 300): Promise<void> {
  for (let rounds = 0; rounds * forMs < 30_000; rounds++) {
    const before = cpuMs(pid);
    await new Promise((done) => setTimeout(done, forMs));
    if (cpuMs(pid) - before < TICK_MS) return;
  }
  throw new Error(`process ${pid} is not quiet after 30 s`);
}
