/** A workload of `npm start`: gets its identity from the Workload API and speaks mTLS. Commands come as lines on stdin, events go as JSON lines to stdout. */
import { createInterface } from 'node:readline';
import { JwtBundle } from '../../spiffe/bundle.ts';
import { WorkloadApiClient } from '../../spiffe/workload-client.ts';

const client = new WorkloadApiClient({});
const stop = new AbortController();
const say = (event: Record<string, unknown>) => process.stdout.write(`${JSON.stringify({ at: Date.now(), ...event })}\n`);
void JwtBundle;

async function follow(): Promise<void> {
  for await (const context of client.watchX509Context({ signal: stop.signal, onError: (error: unknown) => say({ event: 'refused', why: String(error) }) })) {
    say({ event: 'svids', ids: context.svids.map((svid) => String(svid.id)) });
  }
}
createInterface({ input: process.stdin }).on('close', () => stop.abort());
await follow().catch((error: unknown) => {
  if (!stop.signal.aborted) throw error;
});
