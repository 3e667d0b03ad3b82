/** Story 16: strangers crowd at the server's TCP port. An agent that is inside goes on; one of another address comes in. */
import { type Socket, connect } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Agent, createRunningHouse, type House } from './house.ts';

let house: House;
let agent: Agent;
/** Loopback has as many addresses as we like. */
const STRANGER = '127.0.0.66';
const sockets = new Set<Socket>();

beforeAll(async () => {
  ({ house, agent } = await createRunningHouse({ logLevel: 'INFO' }));
});
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
});
afterAll(() => house?.close());

function dial(): Socket {
  const socket = connect({ port: house.port, host: '127.0.0.1', localAddress: STRANGER });
  socket.on('error', () => {});
  sockets.add(socket);
  socket.once('close', () => sockets.delete(socket));
  return socket;
}

/** Handshakes as fast as they come, each thrown away; gives how many there were. */
async function handshakes(width: number, signal: AbortSignal): Promise<number> {
  let count = 0;
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (!signal.aborted)
        await new Promise<void>((done) => {
          const tls = tlsConnect({ socket: dial(), rejectUnauthorized: false, ALPNProtocols: ['h2'] });
          tls.once('secureConnect', () => {
            count++;
            tls.destroy();
          });
          tls.on('error', () => tls.destroy());
          tls.once('close', () => done());
        });
    }),
  );
  return count;
}

/** From an entry's creation to its SVID at a workload that asks, through server and agent. */
async function createdToServed(): Promise<number> {
  const id = await house.createEntry({ id: '/web', parent: agent });
  const from = performance.now();
  await expect
    .poll(async () => (await house.run('agent', 'api', 'fetch', 'x509', '-socketPath', agent.socketPath)).stdout, {
      timeout: 10_000,
      interval: 20,
    })
    .toContain('/web');
  const took = performance.now() - from;
  await house.deleteEntry(id);
  return took;
}

const ways: readonly [how: string, crowd: (signal: AbortSignal) => Promise<unknown>][] = [
  [
    '2,000 connections that say nothing',
    async (signal) => {
      for (let n = 0; n < 2_000; n++) dial();
      await new Promise((done) => signal.addEventListener('abort', done, { once: true }));
    },
  ],
  ['handshakes without end', (signal) => handshakes(50, signal)],
  [
    'bytes that are no TLS',
    async (signal) => {
      while (!signal.aborted) {
        for (let n = 0; n < 20; n++) dial().write(Buffer.alloc(10_000, 0x55));
        await new Promise((done) => setTimeout(done, 20));
      }
    },
  ],
];

describe('while there are', () => {
  for (const [how, crowd] of ways) {
    test(`${how}: the agent that is inside is served, and a new one comes in`, async () => {
      const stop = new AbortController();
      const crowding = crowd(stop.signal);
      try {
        await new Promise((done) => setTimeout(done, 500));
        const took = await createdToServed();
        const late = await house.createAgent(`late-${ways.findIndex(([one]) => one === how)}`);
        await late.start();
        await late.process.line(/Node attestation was successful/, { withinMs: 10_000 });
        await late.process.stop();
        console.log(`${how}: created to served ${took.toFixed(0)} ms (by the command line)`);
        expect(took).toBeLessThan(5_000);
      } finally {
        stop.abort();
        for (const socket of sockets) socket.destroy();
        await crowding;
      }
    });
  }
});
