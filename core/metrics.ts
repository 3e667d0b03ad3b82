/** What is counted and timed, under SPIRE's names; nobody pays for it unless a listener was asked for. */
import { createServer, type Server } from 'node:http';
import { hostname } from 'node:os';
import type { Counter, Gauge, Registry, Summary } from 'prom-client';
import { fail } from './errors.ts';

/** Names in SPIRE's dotted form without the prefix: `server_ca.sign.x509_svid`. A name keeps its labels' names. */
export interface Metrics {
  /** A counter, and how long it took beside it as `<name>.elapsed_time`, in milliseconds. */
  call(name: string, status: string, elapsedMs: number): void;
  count(name: string, labels?: Labels): void;
  /** Asked when somebody reads. */
  gauge(name: string, read: () => number): void;
}
export type Labels = Readonly<Record<string, string>>;

export const noMetrics: Metrics = { call: () => {}, count: () => {}, gauge: () => {} };

export interface MetricsListener {
  readonly host: string;
  readonly port: number;
  readonly prefix: string;
  /** On every metric. */
  readonly labels: Labels;
}

export interface MetricsServer {
  readonly metrics: Metrics;
  readonly server: Server;
}

/** SPIRE's common labels. */
export function commonLabels(settings: { readonly hostname: boolean; readonly trustDomain: string | undefined }): Labels {
  return {
    ...(settings.hostname && { host: clean(hostname()) }),
    ...(settings.trustDomain !== undefined && { trust_domain: clean(settings.trustDomain) }),
  };
}

/** Prometheus' text at any path, as SPIRE, until the server is closed. Throws FAILED_PRECONDITION when the address is taken. */
export async function listenMetrics({ host, port, prefix, labels }: MetricsListener): Promise<MetricsServer> {
  const client = await import('prom-client');
  const registry = new client.Registry();
  registry.setDefaultLabels(labels);
  const server = createServer((request, response) => {
    if (request.method !== 'GET') return void response.writeHead(405).end();
    registry.metrics().then(
      (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
      () => response.writeHead(500).end(),
    );
    return undefined;
  });
  server.requestTimeout = 5_000;
  server.maxConnections = 64;
  await new Promise<void>((done, refuse) => {
    server.once('error', (cause) => refuse(fail('FAILED_PRECONDITION', `metrics listener ${host}:${port}: ${cause.message}`, { cause })));
    server.listen(port, host, done);
  });
  return { metrics: new Prometheus(client, registry, prefix), server };
}

type Client = typeof import('prom-client');

class Prometheus implements Metrics {
  readonly #client: Client;
  readonly #registry: Registry;
  readonly #prefix: string;
  readonly #known = new Map<string, Counter | Summary | Gauge>();

  constructor(client: Client, registry: Registry, prefix: string) {
    this.#client = client;
    this.#registry = registry;
    this.#prefix = prefix;
  }

  call(name: string, status: string, elapsedMs: number): void {
    this.count(name, { status });
    const summary = this.#metric(`${name}.elapsed_time`, (options) => new this.#client.Summary({ ...options, ...SUMMARY }), ['status']);
    (summary as Summary).observe({ status: clean(status) }, elapsedMs);
  }

  count(name: string, labels: Labels = {}): void {
    const counter = this.#metric(name, (options) => new this.#client.Counter(options), Object.keys(labels));
    (counter as Counter).inc(Object.fromEntries(Object.entries(labels).map(([key, value]) => [key, clean(value)])), 1);
  }

  gauge(name: string, read: () => number): void {
    this.#metric(
      name,
      (options) =>
        new this.#client.Gauge({
          ...options,
          collect() {
            this.set(read());
          },
        }),
      [],
    );
  }

  #metric(name: string, make: (options: MetricOptions) => Counter | Summary | Gauge, labelNames: string[]): Counter | Summary | Gauge {
    let metric = this.#known.get(name);
    if (!metric) {
      const full = clean(`${this.#prefix}.${name}`);
      metric = make({ name: full, help: full, labelNames, registers: [this.#registry] });
      this.#known.set(name, metric);
    }
    return metric;
  }
}

interface MetricOptions {
  readonly name: string;
  readonly help: string;
  readonly labelNames: string[];
  readonly registers: Registry[];
}

/** As SPIRE's: the last minute counts. */
const SUMMARY = { percentiles: [0.5, 0.9, 0.99], maxAgeSeconds: 60, ageBuckets: 5 };

/** As SPIRE: whatever is no letter, digit or underscore becomes one. */
function clean(text: string): string {
  return text.replace(/\W+/g, '_');
}

/** What SPIRE calls a method, in metrics and in audit records. */
export interface RpcNames {
  /** `rpc.agent.v1.agent.attest_agent`. */
  readonly metric: string;
  /** `agent.v1.Agent`. */
  readonly service: string;
  readonly method: string;
}

/** @param path `/spire.api.server.agent.v1.Agent/AttestAgent` */
export function rpcNames(path: string): RpcNames {
  let known = METHODS.get(path);
  if (known === undefined) {
    known = namesOf(path);
    METHODS.set(path, known);
  }
  return known;
}

/** As many as there are methods: names of others never come so far. */
const METHODS = new Map<string, RpcNames>();

/** Those that SPIRE calls by less than their package. */
const SHORT: ReadonlyMap<string, string> = new Map([
  ['SpiffeWorkloadAPI', 'WorkloadAPI'],
  ['envoy.service.secret.v3.SecretDiscoveryService', 'SDS.v3'],
  ['grpc.health.v1.Health', 'Health'],
  ['spire.api.server.logger.v1.Logger', 'Logger'],
  ['spire.api.agent.logger.v1.Logger', 'Logger'],
  ['spire.agent.debug.v1.Debug', 'Debug'],
  ['spire.api.agent.delegatedidentity.v1.DelegatedIdentity', 'DelegatedIdentity'],
]);

function namesOf(path: string): RpcNames {
  const [full = '', method = ''] = path.slice(1).split('/');
  const service = SHORT.get(full) ?? full.replace(/^spire\.api\.server\./, '');
  return { metric: ['rpc', ...service.split('.').map(snake), snake(method)].join('.'), service, method };
}

/** An underscore before a capital only where a neighbour is a small letter, and never before the last: `FetchX509SVID` → `fetch_x509svid`. */
function snake(name: string): string {
  return name.replace(/[A-Z]/g, (capital, at: number) => {
    const beside = (name[at - 1] ?? '') + (name[at + 1] ?? '');
    return (at > 0 && at + 1 < name.length && /[a-z]/.test(beside) ? '_' : '') + capital.toLowerCase();
  });
}
