/** gRPC over a UNIX socket, client and server of the house in one process: time of a call, alone and with 100 at once, and of a stream's first message. Prints a table. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silent } from '../core/log.ts';
import { createRpcServer, service } from '../core/rpc.ts';
import { SpiffeWorkloadAPIDefinition, X509SVIDResponse } from '../proto/gen/spiffe/workload/workload.ts';
import { openChannel } from '../spiffe/rpc/channel.ts';
import { Encoded } from '../spiffe/rpc/service.ts';

const directory = mkdtempSync(join(tmpdir(), 'bench-rpc-'));
const path = join(directory, 'api.sock');
const der = Buffer.alloc(1240, 0x30);
const answer = new Encoded(
  Buffer.from(
    X509SVIDResponse.encode(
      X509SVIDResponse.fromPartial({ svids: [{ spiffeId: 'spiffe://example.org/web', x509Svid: der, x509SvidKey: der, bundle: der }] }),
    ).finish(),
  ),
);
const rpc = createRpcServer({
  log: silent,
  allowManyResets: true,
  services: [
    service(SpiffeWorkloadAPIDefinition, {
      validateJWTSVID: async () => ({ spiffeId: 'spiffe://example.org/web', claims: {} }),
      async *fetchX509SVID(_request, { signal }) {
        yield answer;
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      },
    }),
  ],
});
const listener = createServer((socket) => rpc.accept(socket, { kind: 'process', pid: 1, uid: 0, gid: 0, pidfd: -1, connection: socket }));
await new Promise<void>((done) => listener.listen(path, done));
const channel = openChannel({ target: `unix://${path}` });
const api = channel.service(SpiffeWorkloadAPIDefinition);

const unary = () => api.validateJWTSVID({ audience: 'db', svid: 'x'.repeat(600) });
async function first(): Promise<void> {
  for await (const _ of api.fetchX509SVID({})) break;
}

async function measure(what: string, atOnce: number, call: () => Promise<unknown>): Promise<void> {
  const CALLS = 5000;
  const run = async (calls: number) => {
    let left = calls;
    const one = async () => {
      while (left-- > 0) await call();
    };
    await Promise.all(Array.from({ length: atOnce }, one));
  };
  await run(2000);
  const cpu = process.cpuUsage();
  const from = performance.now();
  await run(CALLS);
  const wall = (performance.now() - from) / CALLS;
  const { user, system } = process.cpuUsage(cpu);
  console.log(
    `${what.padEnd(44)} ${String(atOnce).padStart(4)} at once ${((user + system) / CALLS).toFixed(0).padStart(6)} µs CPU (both ends) ${(1000 / wall).toFixed(0).padStart(7)} calls/s`,
  );
}

for (const atOnce of [1, 100]) {
  await measure('unary call', atOnce, unary);
  await measure('stream opened, first message, cancelled', atOnce, first);
}
channel.close();
rpc.close();
listener.close();
rmSync(directory, { recursive: true });
