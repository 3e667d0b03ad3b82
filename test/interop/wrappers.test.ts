/**
 * Every wrapper of TLS against go-spiffe's own, in each mode and in both directions, and bare sockets against py-spiffe's, with SVIDs from our server and agent:
 * who is right is answered, and each way of being wrong is refused by the end that must see it.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { X509Source } from '../../spiffe/source/x509-source.ts';
import { createRunningHouse, type Agent, type House } from '../e2e/house.ts';
import { testCertificate, testRoot, x509 } from '../fakes/ca.ts';
import { BY_NAME, WRAPPERS, type Wrapper } from '../spiffe/tls/wrappers.ts';
import { startWorkload, type Workload } from './setup.ts';
import { type Answered, type End, foreignSide, type Issuer, type Mode, ourSide, type Side, type World, wordsOf } from './tls-ends.ts';

const HOUR_MS = 3_600_000;
const MODES: readonly Mode[] = ['mtls', 'tls', 'mtls-web'];
/** Whose clients have a SPIFFE ID, and whose servers. */
const CLIENT_SHOWS: readonly Mode[] = ['mtls', 'mtls-web'];
const SERVER_SHOWS: readonly Mode[] = ['mtls', 'tls'];

const houses: House[] = [];
const sources: X509Source[] = [];
let go: Workload;
let python: Workload;
let world: World;
let webRoots = '';
let otherRoots = '';

/** A house in which our process is `/node`, and the others have their language for a path. */
async function home(trustDomain: string): Promise<{ agent: Agent; source: X509Source }> {
  const { house, agent } = await createRunningHouse({ trustDomain });
  houses.push(house);
  await house.createEntry({ id: '/node', parent: agent, selectors: [`unix:path:${process.execPath}`] });
  for (const workload of [go, python]) {
    await house.createEntry({ id: `/${workload.language}`, parent: agent, selectors: [workload.selector] });
    await workload.holds(agent.address, `spiffe://${trustDomain}/${workload.language}`);
  }
  const source = await X509Source.open({ address: agent.address, backoff: () => 100, signal: AbortSignal.timeout(30_000) });
  sources.push(source);
  return { agent, source };
}

async function webAuthority() {
  const dates = { uris: [], notBeforeMs: Date.now() - HOUR_MS, notAfterMs: Date.now() + 24 * HOUR_MS };
  const ca = await testRoot(dates);
  const address = new x509.SubjectAlternativeNameExtension([{ type: 'ip', value: '127.0.0.1' }]);
  const leaf = await testCertificate({ ...dates, issuer: ca, extensions: [address] });
  return { roots: ca.pem, certificate: { cert: leaf.pem, key: leaf.key.export({ type: 'pkcs8', format: 'pem' }) as string } };
}

beforeAll(async () => {
  go = await startWorkload('go');
  python = await startWorkload('python');
  const ours = await home('example.org');
  const impostor = await home('example.org');
  const stranger = await home('other.org');
  const web = await webAuthority();
  webRoots = web.roots;
  otherRoots = (await webAuthority()).roots;
  // the SVID of one issuer, judging by the bundles of ours
  const showing = (source: X509Source) => ({
    get svid() {
      return source.svid;
    },
    x509Bundle: ours.source.x509Bundle.bind(ours.source),
    onChange: ours.source.onChange.bind(ours.source),
  });
  const issuers: Record<Issuer, { agent: Agent; source: X509Source }> = { ours, authority: impostor, domain: stranger };
  world = {
    addresses: { ours: ours.agent.address, authority: impostor.agent.address, domain: stranger.agent.address },
    sources: { ours: ours.source, authority: showing(issuers.authority.source), domain: showing(issuers.domain.source) },
    web: web.certificate,
  };
});
afterAll(async () => {
  for (const source of sources) await source.close();
  await go?.close();
  await python?.close();
  for (const house of houses) await house.close();
});

interface Pair {
  readonly what: string;
  readonly client: () => Side;
  readonly server: () => Side;
  readonly wrappers: readonly Wrapper[];
  readonly modes: readonly Mode[];
  /** What the client can't do wrong. */
  readonly never?: RegExp;
}

const ours = () => ourSide(world);
/** Who has a server of his own: undici is a client alone. */
const SERVERS = WRAPPERS.filter(({ serve }) => serve);
const SOCKETS = WRAPPERS.filter(({ name }) => name === 'tls');

const PAIRS: readonly Pair[] = [
  { what: 'our client, go-spiffe as server', client: ours, server: () => foreignSide(go, world), wrappers: WRAPPERS, modes: MODES },
  { what: 'go-spiffe as client, our server', client: () => foreignSide(go, world), server: ours, wrappers: SERVERS, modes: MODES },
  // the Web PKI of spiffe-tls is the system's alone
  {
    what: 'our client, py-spiffe as server',
    client: ours,
    server: () => foreignSide(python, world),
    wrappers: SOCKETS,
    modes: SERVER_SHOWS,
  },
  {
    what: 'py-spiffe as client, our server',
    client: () => foreignSide(python, world),
    server: ours,
    wrappers: SOCKETS,
    modes: SERVER_SHOWS,
    // it shows its SVID to whoever asks
    never: /shows no certificate/,
  },
];

interface Wrong {
  readonly what: string;
  readonly modes: readonly Mode[];
  readonly client?: Partial<End>;
  readonly server?: Partial<End>;
  /** The end that sees it, and what it says: our reason or our words, go-spiffe's words. */
  readonly refusedBy: 'client' | 'server';
  readonly ours: RegExp;
  readonly go: RegExp;
  /** Default: what OpenSSL says of every chain. */
  readonly python?: RegExp;
}

const SOMEBODY = 'spiffe://example.org/somebody';
const NOT_ALLOWED = { ours: /not allowed|ID_NOT_ALLOWED/, go: /unexpected ID/ };
const NO_AUTHORITY = { ours: /signed by an unknown authority/, go: /certificate signed by unknown authority/ };
const NO_BUNDLE = { ours: /no X\.509 bundle found for trust domain "other\.org"/, go: /no X\.509 bundle for trust domain \\?"other\.org/ };

const WRONG: readonly Wrong[] = [
  { what: 'the client wants another server', modes: SERVER_SHOWS, client: { wants: SOMEBODY }, refusedBy: 'client', ...NOT_ALLOWED },
  { what: 'the server wants another client', modes: CLIENT_SHOWS, server: { wants: SOMEBODY }, refusedBy: 'server', ...NOT_ALLOWED },
  {
    what: "the server's SVID is of another authority under our name",
    modes: SERVER_SHOWS,
    server: { issuer: 'authority' },
    refusedBy: 'client',
    ...NO_AUTHORITY,
  },
  {
    what: "the client's SVID is of another authority under our name",
    modes: CLIENT_SHOWS,
    client: { issuer: 'authority' },
    refusedBy: 'server',
    ...NO_AUTHORITY,
  },
  {
    what: "the server's SVID is of another trust domain",
    modes: SERVER_SHOWS,
    server: { issuer: 'domain' },
    refusedBy: 'client',
    ...NO_BUNDLE,
  },
  {
    what: "the client's SVID is of another trust domain",
    modes: CLIENT_SHOWS,
    client: { issuer: 'domain' },
    refusedBy: 'server',
    ...NO_BUNDLE,
  },
  {
    what: 'the client shows no certificate',
    modes: ['mtls'],
    client: { mode: 'tls' },
    refusedBy: 'server',
    ours: /showed no certificate/,
    go: /client didn't provide a certificate/,
    python: /peer did not return a certificate/,
  },
  {
    what: 'the web certificate is of an authority that the client does not know',
    modes: ['mtls-web'],
    client: { roots: 'other' },
    refusedBy: 'client',
    ours: /unable to (get local issuer certificate|verify the first certificate)/,
    go: /certificate signed by unknown authority/,
  },
];

const endOf = (mode: Mode, wants: string, { roots, ...wrong }: Partial<End> = {}): End => ({
  mode,
  issuer: 'ours',
  wants,
  roots: roots === undefined ? webRoots : otherRoots,
  ...wrong,
});

/** One question over one wrapper: the answer or its failure, and the server, which ends with the test. */
async function tried(wrapper: Wrapper, mode: Mode, client: Side, server: Side, wrong: Pick<Wrong, 'client' | 'server'> = {}) {
  const serving = await server.server(wrapper, endOf(mode, client.id, wrong.server));
  onTestFinished(() => serving.close());
  const outcome: Answered | Error = await client
    .ask(wrapper, endOf(mode, server.id, wrong.client), serving.to)
    .catch((error: Error) => error);
  return { serving, outcome };
}

/** What this end says of a peer that it refuses. */
const saidBy = ({ name }: Side, { ours: reason, go: words, python: openssl = /certificate verify failed/ }: Wrong): RegExp =>
  name === 'ours' ? reason : name === 'go-spiffe' ? words : openssl;

for (const { what: pair, client: clientSide, server: serverSide, wrappers, modes: known, never } of PAIRS) {
  describe(pair, () => {
    for (const wrapper of wrappers) {
      test.each(known)(`${wrapper.name}, %s: each knows who the other is`, async (mode) => {
        const [client, server] = [clientSide(), serverSide()];
        const { serving, outcome } = await tried(wrapper, mode, client, server);
        const asked = CLIENT_SHOWS.includes(mode) ? client.id : 'nobody';
        expect(outcome).toEqual({ reply: `you are ${asked}`, peer: SERVER_SHOWS.includes(mode) ? server.id : undefined });
        await serving.close();
        expect(serving.served()).toEqual([asked]);
      });

      for (const wrong of WRONG.filter(({ what }) => !never?.test(what))) {
        const { what, modes, refusedBy } = wrong;
        test.each(modes.filter((mode) => known.includes(mode)))(
          `${wrapper.name}, %s: refused by the ${refusedBy} when ${what}`,
          async (mode) => {
            const [client, server] = [clientSide(), serverSide()];
            const { serving, outcome } = await tried(wrapper, mode, client, server, wrong);
            expect(outcome).toBeInstanceOf(Error);
            if (refusedBy === 'client') expect(wordsOf(outcome)).toMatch(saidBy(client, wrong));
            else expect(await serving.refused()).toMatch(saidBy(server, wrong));
            await serving.close();
            expect(serving.served()).toEqual([]);
          },
        );
      }
    }
  });
}

test.each(PAIRS.filter(({ what }) => what.includes('go-spiffe')))('$what: TLS 1.2 alone is refused over https', async (pair) => {
  const old = (side: Side) => (side.name === 'ours' ? side : foreignSide(go, world, { oldTls: true }));
  const { serving, outcome } = await tried(BY_NAME['https'] as Wrapper, 'mtls', old(pair.client()), old(pair.server()));
  expect(wordsOf(outcome)).toMatch(/protocol version|unsupported protocol/i);
  await serving.close();
  expect(serving.served()).toEqual([]);
});
