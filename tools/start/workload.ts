/**
 * A workload of `npm start`: it holds no secret, asks the Workload API who it is, and speaks mTLS with the other one. It is told what to do by lines on
 * stdin (`serve PEER`, `call PORT PEER`), and tells what happens by lines of JSON on stdout.
 */
import { type AddressInfo, connect } from 'node:net';
import { createInterface } from 'node:readline';
import type { BundleSet } from '../../spiffe/bundle/bundle.ts';
import { validateJwtSvidSync } from '../../spiffe/jwt/jwt-svid.ts';
import { matchId } from '../../spiffe/match.ts';
import { connectTls, TlsServer, tlsPeer } from '../../spiffe/tls/tls.ts';
import { WorkloadApiClient, type X509Context } from '../../spiffe/workload-api/client.ts';

const client = new WorkloadApiClient();
const stop = new AbortController();
const say = (event: Readonly<Record<string, unknown>>) => process.stdout.write(`${JSON.stringify(event)}\n`);

let context: X509Context | undefined;
let jwtBundles: BundleSet | undefined;
let server: TlsServer | undefined;

/** The identity of now. */
function mine(): { readonly svid: X509Context['svids'][number]; readonly bundles: BundleSet } {
  const [svid] = context?.svids ?? [];
  if (!context || !svid) throw new Error('no identity yet');
  return { svid, bundles: context.bundles };
}

async function followX509(): Promise<void> {
  for await (const next of client.watchX509Context({
    signal: stop.signal,
    onError: (error) => say({ event: 'refused', why: String(error) }),
  })) {
    context = next;
    server?.rotate(mine().svid);
    say({ event: 'svids', ids: next.svids.map(({ id }) => String(id)), until: new Date(mine().svid.notAfterMs) });
  }
}

async function followJwt(): Promise<void> {
  for await (const next of client.watchJwtBundles({ signal: stop.signal })) jwtBundles = next;
}

/** Takes connections of `peer` alone; each sends a JWT-SVID that it got for us. */
function serve(peer: string): void {
  server = new TlsServer({
    svid: mine().svid,
    client: 'required',
    bundles: { x509Bundle: (trustDomain) => mine().bundles.x509Bundle(trustDomain) },
    authorize: matchId(peer),
    onRefused: (error) => say({ event: 'turned away', why: String(error) }),
    onConnection: (socket) => {
      createInterface({ input: socket }).once('line', (token) => {
        if (!jwtBundles) return void socket.destroy();
        const audience = [String(mine().svid.id)];
        const { id } = validateJwtSvidSync(token, { audience, bundles: jwtBundles });
        socket.end(`hello ${String(tlsPeer(socket)?.id)}; your token says ${id}\n`);
        return undefined;
      });
    },
  });
  const listening = server.server;
  listening.listen(0, '127.0.0.1', () => {
    const { port } = listening.address() as AddressInfo;
    say({ event: 'serving', port });
  });
}

async function call(port: number, peer: string): Promise<void> {
  const { svid, bundles } = mine();
  const token = (await client.fetchJwtSvid({ audience: peer, subject: svid.id, signal: stop.signal })).token;
  const socket = connect(port, '127.0.0.1');
  const tls = await connectTls(socket, { svid, bundles, authorize: matchId(peer), signal: stop.signal });
  tls.write(`${token}\n`);
  for await (const line of createInterface({ input: tls })) say({ event: 'answer', line, peer: String(tlsPeer(tls)?.id) });
}

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const [word, ...rest] = line.split(' ');
    if (word === 'serve') serve(rest[0] ?? '');
    if (word === 'call') call(Number(rest[0]), rest[1] ?? '').catch((error: unknown) => say({ event: 'failed', why: String(error) }));
  })
  .once('close', () => {
    stop.abort(new Error('told to stop'));
    server?.server.close();
    client.close();
  });

await Promise.all([followX509(), followJwt()]).catch((error: unknown) => {
  if (!stop.signal.aborted) throw error;
});
