/** Whether a program lives and can serve: for gRPC health, and over HTTP for probes, as SPIRE answers them. */
import { createServer, type Server } from 'node:http';
import { HealthCheckResponse_ServingStatus, type HealthDefinition } from '../proto/gen/grpc/health/v1/health.ts';
import { fail } from './errors.ts';
import type { Implementation } from './rpc-types.ts';

/** One part of a program that can be ill; throws what is wrong. Asked anew by every probe: an answer is never old. */
export type Check = () => void | Promise<void>;
export type Checks = Readonly<Record<string, Check>>;

export interface HealthListener {
  readonly address: string;
  readonly port: number;
  readonly livePath: string;
  readonly readyPath: string;
}

/** Serves both paths until closed. Throws FAILED_PRECONDITION when the address is taken. */
export async function listenHealth({ address, port, livePath, readyPath }: HealthListener, checks: Checks): Promise<Server> {
  const server = createServer((request, response) => {
    const path = (request.url ?? '').split('?')[0];
    if (request.method !== 'GET' || (path !== livePath && path !== readyPath)) {
      response.writeHead(404).end();
      return;
    }
    void results(checks).then((answer) => {
      const ill = Object.values(answer).some((one) => one.error !== undefined);
      response.writeHead(ill ? 500 : 200, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
    });
  });
  server.requestTimeout = 5_000;
  server.maxConnections = 64;
  await new Promise<void>((done, refuse) => {
    server.once('error', (cause) => refuse(fail('FAILED_PRECONDITION', `health listener ${address}:${port}: ${cause.message}`, { cause })));
    server.listen(port, address, done);
  });
  return server;
}

async function results(checks: Checks): Promise<Record<string, { error?: string }>> {
  const all = await Promise.all(
    Object.entries(checks).map(async ([name, check]) => {
      try {
        await check();
        return [name, {}] as const;
      } catch (error) {
        return [name, { error: (error as Error).message }] as const;
      }
    }),
  );
  return Object.fromEntries(all);
}

/** grpc.health.v1 as SPIRE has it: of the whole program only. */
export function healthService(isServing: () => boolean | Promise<boolean>): Implementation<typeof HealthDefinition> {
  const status = async () =>
    (await isServing()) ? HealthCheckResponse_ServingStatus.SERVING : HealthCheckResponse_ServingStatus.NOT_SERVING;
  const whole = (service: string) => {
    if (service !== '') throw fail('REQUEST_INVALID', 'per-service health is not supported');
  };
  return {
    async check({ service }) {
      whole(service);
      return { status: await status() };
    },
    async list() {
      return { statuses: { '': { status: await status() } } };
    },
    async *watch({ service }, { signal }) {
      whole(service);
      yield { status: await status() };
      await new Promise((_, ended) => signal.addEventListener('abort', () => ended(signal.reason), { once: true }));
    },
  };
}
