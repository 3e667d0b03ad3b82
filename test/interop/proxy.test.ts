/** go-spiffe as the peer of our proxy, both ways round, over our server and agent: who is let through, and who is refused before the program behind hears a byte. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { Daemon } from '../e2e/daemon.ts';
import { type Agent, createRunningHouse, type House, WARIFU } from '../e2e/house.ts';
import { startWorkload, type Workload } from './setup.ts';

const GO = 'spiffe://example.org/go';
const PROXY = 'spiffe://example.org/proxy';
const SOMEBODY = 'spiffe://example.org/somebody';

let go: Workload;
const houses: House[] = [];
let ours: Agent;
let stranger: Agent;

async function home(trustDomain: string): Promise<Agent> {
  const { house, agent } = await createRunningHouse({ trustDomain });
  houses.push(house);
  await house.createEntry({ id: '/proxy', parent: agent, selectors: [`unix:path:${process.execPath}`] });
  await house.createEntry({ id: '/go', parent: agent, selectors: [go.selector] });
  await go.holds(agent.address, `spiffe://${trustDomain}/go`);
  return agent;
}

beforeAll(async () => {
  go = await startWorkload('go');
  ours = await home('example.org');
  stranger = await home('other.org');
});
afterAll(async () => {
  await go?.close();
  for (const house of houses) await house.close();
});

/** A program that speaks plain, and what reached it. */
async function backend(answer: string) {
  const heard: string[] = [];
  const server = createServer((socket) =>
    socket.on('error', () => {}).on('data', (data) => void (heard.push(String(data)), socket.write(answer))),
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return { port: (server.address() as AddressInfo).port, heard };
}

/** Gives the port of the proxy, and what it says of connections. */
async function proxy(...flags: readonly string[]) {
  const daemon = new Daemon('proxy', [...WARIFU, 'proxy', ...flags, '--use-workload-api-addr', ours.address, '--log-format', 'json']);
  onTestFinished(async () => void (await daemon.stop()));
  const { address } = JSON.parse(await daemon.line(/"listening for connections"/)) as { address: string };
  return { port: Number(address.split(':').pop()), daemon };
}

async function askPlain(port: number): Promise<string> {
  const socket: Socket = connect(port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  socket.on('error', () => {}).write('0\n');
  let said = '';
  socket.on('data', (data) => {
    said += String(data);
    if (said.endsWith('\n')) socket.end();
  });
  await new Promise((done) => socket.once('close', done));
  return said;
}

describe('go-spiffe as client of warifu proxy server', () => {
  const asks = (port: number, more: { addr?: string; peer?: string; mode?: 'mtls' | 'tls'; oldTls?: boolean } = {}) =>
    go.call('wrapper.ask', {
      addr: ours.address,
      bundles: ours.address,
      mode: 'mtls',
      peer: PROXY,
      kind: 'tls',
      to: `127.0.0.1:${port}`,
      ...more,
    });
  const serving = async (allowed: string) => {
    const behind = await backend('plain behind\n');
    return {
      behind,
      ...(await proxy('server', '--listen', '127.0.0.1:0', '--target', `127.0.0.1:${behind.port}`, '--allow-uri', allowed)),
    };
  };

  test('is let through, and each knows the other', async () => {
    const { behind, port, daemon } = await serving(GO);
    expect(await asks(port)).toEqual({ reply: 'plain behind', peer: PROXY, protocol: 'tls' });
    expect(behind.heard).toEqual(['0\n']);
    expect(JSON.parse(await daemon.line(/"closed pipe"/))).toMatchObject({ verdict: 'allowed', peer: GO });
  });

  test.each([
    ['that is not allowed', SOMEBODY, {}, /"POLICY_DENIED"/],
    ['of another trust domain that nobody federates with', GO, () => ({ addr: stranger.address }), /"CERTIFICATE_REFUSED"/],
    ['that shows no certificate', GO, { mode: 'tls' }, /"CERTIFICATE_REFUSED"/],
    ['that speaks no TLS after 1.2', GO, { oldTls: true }, /"TLS_HANDSHAKE"/],
  ] as const)('%s is refused, and the program behind hears nothing', async (_, allowed, more, reason) => {
    const { behind, port, daemon } = await serving(allowed);
    await expect(asks(port, typeof more === 'function' ? more() : more)).rejects.toThrow();
    await daemon.line(reason);
    expect(behind.heard).toEqual([]);
  });

  test('that wants another server than this one goes, and says nothing', async () => {
    const { behind, port } = await serving(GO);
    await expect(asks(port, { peer: SOMEBODY })).rejects.toThrow(/unexpected ID/);
    expect(behind.heard).toEqual([]);
  });
});

describe('go-spiffe as server of warifu proxy client', () => {
  const serve = (more: { addr?: string; peer?: string; oldTls?: boolean } = {}) =>
    go.serve({ addr: ours.address, bundles: ours.address, mode: 'mtls', peer: PROXY, kind: 'tls', ...more });
  const calling = (to: string, wanted: string) => proxy('client', '--listen', '127.0.0.1:0', '--target', to, '--verify-uri', wanted);

  test('is reached, and each knows the other', async () => {
    const server = await serve();
    const { port, daemon } = await calling(server.to, GO);
    expect(await askPlain(port)).toBe(`you are ${PROXY}\n`);
    expect(JSON.parse(await daemon.line(/"closed pipe"/))).toMatchObject({ verdict: 'allowed', peer: GO });
    await server.stop();
  });

  test.each([
    ['that is not the one that was meant', SOMEBODY, {}, /"UPSTREAM_REFUSED"/],
    [
      'of another trust domain that nobody federates with',
      'spiffe://other.org/go',
      () => ({ addr: stranger.address }),
      /"UPSTREAM_REFUSED"/,
    ],
    ['that speaks no TLS after 1.2', GO, { oldTls: true }, /"UPSTREAM_TLS"/],
  ] as const)('%s is told nothing', async (_, wanted, more, reason) => {
    const server = await serve(typeof more === 'function' ? more() : more);
    const { port, daemon } = await calling(server.to, wanted);
    expect(await askPlain(port)).toBe('');
    await daemon.line(reason);
    await server.stop();
    expect(server.happenings.items.filter(({ event }) => event === 'served')).toEqual([]);
  });

  test('that refuses us ends what was begun', async () => {
    const server = await serve({ peer: SOMEBODY });
    const { port } = await calling(server.to, GO);
    expect(await askPlain(port)).toBe('');
    await server.stop();
    expect(server.happenings.items.filter(({ event }) => event === 'served')).toEqual([]);
  });
});
