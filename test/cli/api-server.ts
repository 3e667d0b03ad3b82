/** A server of the real wire on a real UNIX socket, whose answers a test writes. */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silent } from '../../core/log.ts';
import { createRpcServer, type Service } from '../../core/rpc.ts';

export interface ApiServer extends AsyncDisposable {
  readonly socketPath: string;
  readonly folder: string;
}

export async function startApiServer(...services: readonly Service[]): Promise<ApiServer> {
  const folder = await mkdtemp(join(tmpdir(), 'warifu-cli-'));
  const socketPath = join(folder, 'api.sock');
  const rpc = createRpcServer({ services, log: silent });
  const sockets = new Set<Socket>();
  const listener = createServer((socket) => {
    sockets.add(socket);
    rpc.accept(socket, { kind: 'process', pid: process.pid, uid: 0, gid: 0, pidfd: -1, connection: socket });
  });
  await new Promise<void>((resolve) => listener.listen(socketPath, resolve));
  return {
    socketPath,
    folder,
    async [Symbol.asyncDispose]() {
      rpc.close();
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => listener.close(resolve));
      await rm(folder, { recursive: true });
    },
  };
}
