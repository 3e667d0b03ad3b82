/** Both ends of SPIFFE TLS, each by our wrappers or by another library, as one shape: whatever stands at one end, the same is asked of it. */
import { matchId } from '../../spiffe/match.ts';
import type { X509Identity } from '../../spiffe/source/x509-identity.ts';
import type { WebCertificate } from '../../spiffe/tls/tls.ts';
import { serverOf, type Wrapper } from '../spiffe/tls/wrappers.ts';
import type { ForeignClient, ForeignServer, ForeignTls, Workload } from './setup.ts';

/** By whom an end's SVID was issued: our server, another one that says it is our trust domain, the one of another trust domain. */
export type Issuer = 'ours' | 'authority' | 'domain';
export type Mode = ForeignTls['mode'];

export interface End {
  readonly mode: Mode;
  readonly issuer: Issuer;
  /** The SPIFFE ID that it wants at the other end. */
  readonly wants: string;
  /** PEM: what a client of mtls-web trusts. */
  readonly roots: string;
}

/** What both implementations draw from. */
export interface World {
  /** The Workload API of each issuer. */
  readonly addresses: Readonly<Record<Issuer, string>>;
  /** Our own process at each of them, always judging by the bundles of our server. */
  readonly sources: Readonly<Record<Issuer, X509Identity>>;
  readonly web: WebCertificate;
}

export interface ServerEnd {
  readonly to: string;
  /** Who reached its user. Complete once it was closed. */
  readonly served: () => readonly string[];
  /** Words of each refusal, the reason among them where there is one. Waits for the first. */
  readonly refused: () => Promise<string>;
  close(): Promise<void>;
}

export interface Answered {
  readonly reply: string;
  /** The server as the client's library tells it; undefined: it has no SPIFFE ID. */
  readonly peer: string | undefined;
}

/** What an end is made of: whom it takes, and how it asks one question. */
export interface Side {
  readonly name: 'ours' | 'go-spiffe' | 'py-spiffe';
  readonly id: string;
  server(wrapper: Wrapper, end: End): Promise<ServerEnd>;
  /** Asks once, over a connection of its own. */
  ask(wrapper: Wrapper, end: End, to: string): Promise<Answered>;
}

/** Words and reasons of a failure, wherever a wrapped library has put them. */
export function wordsOf(error: unknown): string {
  const found: string[] = [];
  for (let one = error; one instanceof Error; one = one.cause) found.push(String((one as { reason?: unknown }).reason ?? ''), one.message);
  return found.filter(Boolean).join(' | ');
}

export function ourSide(world: World): Side {
  return {
    name: 'ours',
    id: 'spiffe://example.org/node',
    async server(wrapper, { mode, issuer, wants }) {
      const source = world.sources[issuer];
      const authorize = matchId(wants);
      const serving = await serverOf(wrapper).serve(
        mode === 'tls'
          ? { mode, source }
          : mode === 'mtls'
            ? { mode, source, authorize }
            : { mode, source, authorize, certificate: () => world.web },
      );
      const first = new Promise((resolve) => serving.server.once('tlsClientError', resolve));
      return {
        to: `127.0.0.1:${serving.port}`,
        served: () => serving.delivered.map((words) => words.replace('you are ', '')),
        refused: async () => wordsOf(await first),
        close: () => serving.close(),
      };
    },
    async ask(wrapper, { mode, issuer, wants, roots }, to) {
      const source = world.sources[issuer];
      const wanted = matchId(wants);
      let peer: string | undefined;
      const authorize: typeof wanted = (id) => {
        peer = String(id);
        return wanted(id);
      };
      const asking = await wrapper.client(
        mode === 'mtls-web' ? { mode, source, roots } : { mode, source, authorize },
        Number(to.split(':').at(-1)),
      );
      try {
        return { reply: await asking.ask(), peer };
      } finally {
        await asking.close();
      }
    },
  };
}

/** Another library's server of HTTP speaks both HTTPs, and its HTTP/1.1 client is one, whoever asks it to be. */
const SERVER_KIND: Readonly<Record<string, ForeignServer['kind']>> = {
  tls: 'tls',
  https: 'http',
  http2: 'http',
  undici: 'http',
  grpc: 'grpc',
};
const CLIENT_KIND: Readonly<Record<string, ForeignClient['kind']>> = {
  tls: 'tls',
  https: 'https',
  http2: 'http2',
  undici: 'https',
  grpc: 'grpc',
};
/** What is meant by each wrapper, in Go's words. */
const PROTOCOL: Readonly<Record<string, string>> = { tls: 'tls', https: 'HTTP/1.1', http2: 'HTTP/2.0', undici: 'HTTP/1.1', grpc: 'grpc' };

function kindOf<K>(kinds: Readonly<Record<string, K>>, { name }: Wrapper): K {
  const kind = kinds[name];
  if (kind === undefined) throw new Error(`no workload has anything for ${name}`);
  return kind;
}

export function foreignSide(workload: Workload, { addresses, web }: World, more: Partial<ForeignTls> = {}): Side {
  const name = workload.language === 'go' ? 'go-spiffe' : 'py-spiffe';
  const settings = ({ mode, issuer, wants, roots }: End): ForeignTls => ({
    addr: addresses[issuer],
    bundles: addresses.ours,
    mode,
    peer: wants,
    certificate: web.cert,
    key: web.key,
    roots,
    ...more,
  });
  const asMeant = (wrapper: Wrapper, protocol: string | undefined) => {
    const meant = kindOf(PROTOCOL, wrapper);
    if (protocol !== meant) throw new Error(`${wrapper.name} means ${meant}, ${name} saw ${protocol}`);
  };
  return {
    name,
    id: `spiffe://example.org/${workload.language}`,
    async server(wrapper, end) {
      const serving = await workload.serve({ ...settings(end), kind: kindOf(SERVER_KIND, wrapper) });
      return {
        to: serving.to,
        served: () =>
          serving.happenings.items.flatMap((one) => {
            if (one.event !== 'served') return [];
            asMeant(wrapper, one.data.protocol);
            return [one.data.peer];
          }),
        async refused() {
          const found = await serving.happenings.find((one) => one.event === 'refused', { what: `${name} refuses` });
          return 'message' in found.data ? found.data.message : '';
        },
        close: () => serving.stop(),
      };
    },
    async ask(wrapper, end, to) {
      const { reply, peer, protocol } = await workload.call('wrapper.ask', { ...settings(end), kind: kindOf(CLIENT_KIND, wrapper), to });
      asMeant(wrapper, protocol);
      return { reply, peer: peer === 'nobody' ? undefined : peer };
    },
  };
}
