/** A process of its own for environment.test.ts: asks one server after another, one by each way, and tells what came of it. */
import { connect } from 'node:tls';
import { X509FileSource } from '../../../spiffe/source/file-source.ts';
import { matchId } from '../../../spiffe/match.ts';
import { PEER } from '../tls/attacks.ts';
import { nameOf, WAYS } from './ways.ts';

const [folder = '', ...ports] = process.argv.slice(2);
const source = new X509FileSource({ directory: folder });
await source.ready();
const authorize = matchId(PEER);

const bare = await new Promise<string>((done) => {
  const socket = connect({ port: Number(ports[1]), host: 'localhost' }, () => done('talks'));
  socket.once('error', (error) => done(error.message));
  socket.once('secureConnect', () => socket.destroy());
});
console.log(`bare node:tls: ${bare}`);
const all = WAYS.map(async (way, at) => {
  const answer = way.client(source, { authorize }, Number(ports[at])).ask();
  const told = answer.then(
    () => 'talks',
    (error: Error) => error.message,
  );
  // who talks gets no answer
  const none = new Promise<string>((done) => setTimeout(done, 20_000, 'talks'));
  return `${nameOf(way)}: ${await Promise.race([told, none])}`;
});
for (const line of await Promise.all(all)) console.log(line);
process.exit();
