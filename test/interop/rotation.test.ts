/**
 * Rotation, while handshakes go on all the time: lifetimes so short that the CA changes twice, the upstream intermediate and its root are handed over, the server
 * and the agent restart. Not one handshake fails. 60 s; `WARIFU_SOAK_SECONDS=180` for the long form, with SPIFFE's usual proportions (CA 60 s, SVID 10 s).
 */
import { once } from 'node:events';
import { copyFileSync } from 'node:fs';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SpiffeId } from '../../spiffe/id.ts';
import { connectTls, TlsServer, tlsPeer } from '../../spiffe/tls/tls.ts';
import { WorkloadApiClient, type X509Context } from '../../spiffe/workload-api/client.ts';
import { type Agent, createRunningHouse, type House } from '../e2e/house.ts';
import { createPki } from '../e2e/pki.ts';
import { type Follow, startWorkload, type Workload } from './setup.ts';

const SECONDS = Number(process.env['WARIFU_SOAK_SECONDS'] ?? 60);
const LONG = SECONDS >= 120;
const CA_TTL = LONG ? '60s' : '30s';
const SVID_TTL = LONG ? '10s' : '6s';
/** Between two handshakes of one pair. */
const PAUSE_MS = 25;

interface Tally {
  handshakes: number;
  readonly failures: string[];
  readonly svids: Set<string>;
  readonly issuers: Set<string>;
  roots: number;
}

/** A workload of our SDK for as long as the story lasts: it watches, serves with its newest SVID, and dials. */
class Node {
  readonly #api: WorkloadApiClient;
  readonly #stop = new AbortController();
  #context: X509Context | undefined;
  #tls: TlsServer | undefined;
  readonly tally: Tally;

  constructor(address: string, tally: Tally) {
    this.#api = new WorkloadApiClient({ address, backoff: () => 100 });
    this.tally = tally;
  }

  async start(): Promise<string> {
    await new Promise<void>((ready) => {
      this.#watch(ready).catch((error: unknown) => {
        if (!this.#stop.signal.aborted) this.tally.failures.push(`watch: ${String(error)}`);
      });
    });
    const bundles = { x509Bundle: (of: Parameters<X509Context['bundles']['x509Bundle']>[0]) => this.#context?.bundles.x509Bundle(of) };
    const tls = new TlsServer({
      svid: this.#svid(),
      bundles,
      client: 'required',
      authorize: () => {},
      onRefused: (error) => this.tally.failures.push(`refused: ${String(error)}`),
      onConnection: (socket) => {
        createInterface({ input: socket }).once('line', (line) => socket.end(`${String(tlsPeer(socket)?.id)} ${line}\n`));
      },
    });
    this.#tls = tls;
    tls.server.listen(0, '127.0.0.1');
    await once(tls.server, 'listening');
    return `127.0.0.1:${(tls.server.address() as AddressInfo).port}`;
  }

  async #watch(ready: () => void): Promise<void> {
    for await (const context of this.#api.watchX509Context({ signal: this.#stop.signal })) {
      this.#context = context;
      const svid = this.#svid();
      this.tally.svids.add(svid.leaf.sha256);
      this.tally.issuers.add(svid.leaf.aki?.toString('hex') ?? '');
      this.tally.roots = Math.max(this.tally.roots, context.bundles.x509Bundle(svid.id.trustDomain)?.authorities.length ?? 0);
      this.#tls?.rotate(svid);
      ready();
    }
  }

  #svid() {
    const svid = this.#context?.svids[0];
    if (!svid) throw new Error('no SVID');
    return svid;
  }

  /** One connection: a handshake both ends agree on, a line, its echo. */
  async dial(to: string, peer: string): Promise<void> {
    const [host = '', port = ''] = to.split(':');
    const tcp = connect(Number(port), host);
    await once(tcp, 'connect');
    const context = this.#context;
    if (!context) throw new Error('no context');
    const wanted = SpiffeId.parse(peer);
    const socket = await connectTls(tcp, {
      svid: this.#svid(),
      bundles: context.bundles,
      authorize: (id) => {
        if (!id.equals(wanted)) throw new Error(`peer is ${id}`);
      },
    });
    try {
      socket.write('hello\n');
      const [line] = (await Promise.race([
        once(createInterface({ input: socket }), 'line'),
        once(socket, 'close').then(() => ['closed']),
      ])) as [string];
      if (line !== `${this.#svid().id} hello`) throw new Error(`answer ${line}`);
    } finally {
      socket.destroy();
    }
  }

  async dialForEver(to: string, peer: string): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await this.dial(to, peer);
        this.tally.handshakes++;
      } catch (error) {
        this.tally.failures.push(`${new Date().toISOString()} to ${peer}: ${String(error)}`);
      }
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
  }

  close(): void {
    this.#stop.abort();
    this.#api.close();
    this.#tls?.server.close();
  }
}

describe.each([
  ['with a CA of ours below the intermediate', false],
  ['with the intermediate itself (sign_directly)', true],
])('%s', (_, signDirectly) => {
  let house: House;
  let agent: Agent;
  let go: Workload;
  let goServer: Follow & { readonly to: string };
  let node: Node;
  const tally: Tally = { handshakes: 0, failures: [], svids: new Set(), issuers: new Set(), roots: 0 };

  beforeAll(async () => {
    ({ house, agent } = await createRunningHouse({ signDirectly, caTtl: CA_TTL, x509SvidTtl: SVID_TTL, agent: { attestor: 'x509pop' } }));
    go = await startWorkload('go');
    await house.createEntry({ id: '/go', parent: agent, selectors: [go.selector] });
    await house.createEntry({ id: '/node', parent: agent, selectors: [`unix:path:${process.execPath}`] });
    await go.holds(agent.address, 'spiffe://example.org/go');
    goServer = await go.listen({ addr: agent.address, peer: 'spiffe://example.org/node' });
    node = new Node(agent.address, tally);
  });
  afterAll(async () => {
    node?.close();
    await goServer?.stop();
    await go?.close();
    await house?.close();
  });

  test(
    `no handshake of ${SECONDS} s fails: through rotations, a restart of the server, one of the agent, and another intermediate under another root`,
    async () => {
      const own = await node.start();
      const dialing = Promise.all([
        node.dialForEver(own, 'spiffe://example.org/node'),
        node.dialForEver(goServer.to, 'spiffe://example.org/go'),
      ]);
      const at = (share: number) => started + SECONDS * 1_000 * share;
      const until = (time: number) => new Promise((done) => setTimeout(done, Math.max(0, time - performance.now())));
      const started = performance.now();

      await until(at(0.15));
      await house.server.stop();
      await house.startServer();

      await until(at(0.35));
      await agent.process.stop();
      await agent.start();

      await until(at(0.5));
      const next = createPki(join(house.dir, 'next'), signDirectly ? { pathlen: 0 } : {});
      // three files can't change at once: the server takes them as a set
      copyFileSync(next.root, house.pki.root);
      copyFileSync(next.intermediate, house.pki.intermediate);
      copyFileSync(next.intermediateKey, house.pki.intermediateKey);

      await until(at(1));
      node.close();
      await dialing;
      console.log(
        `${tally.handshakes} handshakes, ${tally.failures.length} failed; ${tally.svids.size} SVIDs of ${tally.issuers.size} issuers, ${tally.roots} roots in the bundle`,
      );
      expect(tally.failures).toEqual([]);
      expect(tally.handshakes).toBeGreaterThan(SECONDS * 10);
      // two CA rotations, or the hand-over
      expect(tally.issuers.size).toBeGreaterThanOrEqual(signDirectly ? 2 : 3);
      expect(tally.roots).toBe(2);
      expect(tally.svids.size).toBeGreaterThan(SECONDS / 10);
    },
    (SECONDS + 60) * 1_000,
  );
});
