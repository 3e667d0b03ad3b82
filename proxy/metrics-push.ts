/** Hands metrics on by itself, under ghostunnel's names: lines to Graphite, a list by POST. What fails is tried again at the next turn. */
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import type { Log } from '../core/log.ts';
import type { AlarmClock } from '../spiffe/clock.ts';
import type { MetricsSettings } from './process-settings.ts';
import { type GhostunnelMetric, ghostunnelMetrics, type Snapshot } from './snapshot.ts';
import { listOf } from './status.ts';

export interface PushParts {
  readonly settings: MetricsSettings;
  readonly snapshot: () => Snapshot | Promise<Snapshot>;
  readonly log: Log;
  readonly clock: AlarmClock;
}

/** Of one delivery; never longer than the interval. */
const LIMIT_MS = 10_000;

/** Until the signal aborts, whose reason it throws. */
export async function pushMetrics({ settings, snapshot, log, clock }: PushParts, signal: AbortSignal): Promise<never> {
  const { graphite, url, prefix, intervalMs } = settings;
  const sinks: Sink[] = [];
  if (graphite)
    sinks.push({
      to: `${graphite.host}:${graphite.port}`,
      failing: false,
      send: (metrics, limit) => toGraphite(graphite, metrics, clock.now(), limit),
    });
  if (url !== undefined)
    sinks.push({ to: new URL(url).host, failing: false, send: (metrics, limit) => toUrl(url, metrics, clock.now(), limit) });
  for (;;) {
    await clock.sleep(intervalMs, signal, { ref: false });
    try {
      const metrics = ghostunnelMetrics(await snapshot(), prefix);
      await Promise.all(sinks.map((sink) => deliver(sink, metrics, Math.min(LIMIT_MS, intervalMs), { log, clock, signal })));
    } catch (error) {
      log.warn('metrics could not be told', { error });
    }
  }
}

interface Sink {
  readonly to: string;
  readonly send: (metrics: readonly GhostunnelMetric[], signal: AbortSignal) => Promise<void>;
  /** Told once, not each time. */
  failing: boolean;
}

async function deliver(
  sink: Sink,
  metrics: readonly GhostunnelMetric[],
  limitMs: number,
  { log, clock, signal }: Pick<PushParts, 'log' | 'clock'> & { readonly signal: AbortSignal },
): Promise<void> {
  const limit = new AbortController();
  const callOff = clock.after(limitMs, () => limit.abort(new Error(`not taken within ${limitMs} ms`)));
  try {
    await sink.send(metrics, AbortSignal.any([signal, limit.signal]));
    if (sink.failing) log.info('metrics are taken again', { address: sink.to });
    sink.failing = false;
  } catch (error) {
    if (!sink.failing && !signal.aborted)
      log.warn('metrics could not be pushed; they are tried again each time', {
        address: sink.to,
        error: limit.signal.aborted ? limit.signal.reason : error,
      });
    sink.failing = true;
  } finally {
    callOff();
  }
}

function toGraphite(
  to: { readonly host: string; readonly port: number },
  metrics: readonly GhostunnelMetric[],
  nowMs: number,
  signal: AbortSignal,
): Promise<void> {
  const seconds = Math.floor(nowMs / 1000);
  return new Promise((resolve, reject) => {
    const socket = connect({ ...to, signal });
    socket.once('error', reject);
    socket.once('close', () => resolve());
    // it says nothing, and closes when we do
    socket.resume();
    socket.end(metrics.map(({ metric, value }) => `${metric} ${value} ${seconds}\n`).join(''));
  });
}

async function toUrl(url: string, metrics: readonly GhostunnelMetric[], nowMs: number, signal: AbortSignal): Promise<void> {
  const request = url.startsWith('https:') ? (await import('node:https')).request : httpRequest;
  const body = JSON.stringify(listOf(metrics, nowMs));
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  const status = await new Promise<number>((resolve, reject) => {
    request(url, { method: 'POST', signal, agent: false, headers }, (response) => {
      response.on('error', () => {});
      response.destroy();
      resolve(response.statusCode ?? 0);
    })
      .on('error', reject)
      .end(body);
  });
  if (status < 200 || status > 299) throw new Error(`answered ${status}`);
}
