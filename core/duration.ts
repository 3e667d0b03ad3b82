/** Go's durations, as SPIRE's settings and flags write them: text to milliseconds and back. */

const GO_UNITS_MS: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, µs: 1e-3, μs: 1e-3, ms: 1, s: 1e3, m: 60e3, h: 3_600e3 };

/** A Go duration in milliseconds, or what is wrong with it. */
export function parseDurationMs(written: string): number | string {
  if (written === '0') return 0;
  if (/^[+-]?[0-9.]+$/.test(written)) return `${written} has no unit: write "${written}s" for seconds, or a duration such as "1h30m"`;
  if (written.startsWith('-')) return 'must not be negative';
  const parts = [...written.replace(/^\+/, '').matchAll(/([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)/gy)];
  if (parts.length === 0 || parts.map(([part]) => part).join('') !== written.replace(/^\+/, ''))
    return 'expected a duration such as "90s" or "1h30m"';
  const ms = parts.reduce((sum, [, count = '', unit = '']) => sum + Number(count) * (GO_UNITS_MS[unit] ?? Number.NaN), 0);
  return ms <= MAX_GO_MS ? ms : 'longer than 292 years';
}

/** Go counts nanoseconds in 63 bits. */
const MAX_GO_MS = 9_223_372_036_854;

/** A duration as Go prints it: `1h30m0s`, `1.5s`, `300ms`. */
export function formatDuration(ms: number): string {
  if (ms === 0) return '0s';
  if (ms < 1000) {
    if (ms >= 1) return `${trim(ms)}ms`;
    return ms >= 1e-3 ? `${trim(ms * 1e3)}µs` : `${Math.round(ms * 1e6)}ns`;
  }
  const hours = Math.floor(ms / 3_600_000);
  const minutes = Math.floor((ms % 3_600_000) / 60_000);
  const seconds = `${trim(Number(((ms % 60_000) / 1000).toFixed(9)))}s`;
  return hours > 0 ? `${hours}h${minutes}m${seconds}` : minutes > 0 ? `${minutes}m${seconds}` : seconds;
}

function trim(value: number): string {
  return String(Number(value.toFixed(9)));
}
