/** A Workload API that answers what a test says: real gRPC on a real UNIX socket. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silent } from '../../core/log.ts';
import { createRpcServer, type RpcServer, service } from '../../core/rpc.ts';
import type { Implementation } from '../../core/rpc-types.ts';
import { SpiffeWorkloadAPIDefinition } from '../../proto/gen/spiffe/workload/workload.ts';

export interface SeenCall {
  /** `FetchX509SVID`. */
  readonly method: string;
  /** Every value of `workload.spiffe.io`. */
  readonly header: readonly string[];
  /** Once the caller has gone. */
  readonly signal: AbortSignal;
}

/** May be stopped and started again at the same address. */
export class FakeWorkloadApi {
  readonly calls: SeenCall[] = [];
  /** Connections that were made. */
  connections = 0;
  readonly #directory = mkdtempSync(join(tmpdir(), 'workload-api-'));
  readonly #answers: Implementation<typeof SpiffeWorkloadAPIDefinition>;
  readonly #path = join(this.#directory, 'api.sock');
  #running: { readonly rpc: RpcServer; readonly listener: Server } | undefined;

  /** @param answers what each RPC answers; one that is left out is UNIMPLEMENTED. */
  constructor(answers: Implementation<typeof SpiffeWorkloadAPIDefinition> = {}) {
    this.#answers = answers;
  }

  get address(): string {
    return `unix://${this.#path}`;
  }

  async start(): Promise<this> {
    const rpc = createRpcServer({
      log: silent,
      gate: ({ method, metadata, signal }) => {
        this.calls.push({ method: method.slice(method.lastIndexOf('/') + 1), header: metadata.get('workload.spiffe.io') ?? [], signal });
      },
      services: [service(SpiffeWorkloadAPIDefinition, this.#answers)],
    });
    const listener = createServer((socket) => {
      this.connections++;
      rpc.accept(socket, { kind: 'process', pid: process.pid, uid: 0, gid: 0, pidfd: -1, connection: socket });
    });
    await new Promise<void>((done) => listener.listen(this.#path, done));
    this.#running = { rpc, listener };
    return this;
  }

  /** Cuts every connection; the socket is gone when this returns. */
  async stop(): Promise<void> {
    const running = this.#running;
    if (!running) return;
    this.#running = undefined;
    const closed = new Promise((done) => running.listener.close(done));
    running.rpc.close();
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** For handlers: as long as the caller stays. */
export function gone(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
}
