/** Where the Workload API may be: spiffe-helper's bare path, a URI, or a list of them in SPIFFE_ENDPOINT; the first that answers is used. */
import { connect } from 'node:net';
import { resolve } from 'node:path';
import { fail } from '../../core/errors.ts';
import type { Clock } from '../../spiffe/clock.ts';
import { parseEndpoint } from '../../spiffe/workload-api/endpoint.ts';

/** spiffe-helper's. */
const DEFAULT_PATH = '/tmp/spire-agent/public/api.sock';

export interface Endpoints {
  /** `unix:///path` or `tcp://ip:port`, one or more, the best first. */
  readonly addresses: readonly string[];
  /** Entries of SPIFFE_ENDPOINT whose way of delivery is not ours, such as `file:`. */
  readonly skipped: readonly string[];
}

/**
 * The file's `agent_address`; else SPIFFE_ENDPOINT (a draft: URIs with commas between them, in order of preference; what is not known is passed over);
 * else SPIFFE_ENDPOINT_SOCKET; else SPIRE's default. Throws REQUEST_INVALID for what is malformed, and for a list in which nothing is ours.
 */
export function endpointsOf(configured: string | undefined, env: Readonly<Record<string, string | undefined>>): Endpoints {
  const { SPIFFE_ENDPOINT: list, SPIFFE_ENDPOINT_SOCKET: socket } = env;
  if (configured !== undefined) return { addresses: [addressOf(configured)], skipped: [] };
  if (list === undefined || list.trim() === '') return { addresses: [addressOf(socket || DEFAULT_PATH)], skipped: [] };
  const entries = list
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '');
  const ours = entries.filter((entry) => /^(?:unix|tcp):/i.test(entry));
  if (ours.length === 0)
    throw fail('REQUEST_INVALID', `SPIFFE_ENDPOINT ${JSON.stringify(list)} names no endpoint of the schemes unix and tcp`);
  return { addresses: ours.map(addressOf), skipped: entries.filter((entry) => !ours.includes(entry)) };
}

/** A bare path becomes a URI; a relative one belongs to the working directory. Throws REQUEST_INVALID. */
export function addressOf(written: string): string {
  const isUri = /^(?:unix|tcp):/i.test(written) || /^[A-Za-z][A-Za-z0-9+.-]*:\/\//.test(written);
  const uri = isUri ? written : `unix://${resolve(written).split('/').map(encodeURIComponent).join('/')}`;
  parseEndpoint(uri);
  return uri;
}

/** Whether somebody takes a connection there now. */
export function answers(address: string, signal: AbortSignal): Promise<boolean> {
  return new Promise((tell) => {
    const socket = connect({ ...parseEndpoint(address), signal });
    socket.once('connect', () => {
      socket.destroy();
      tell(true);
    });
    socket.once('error', () => tell(false));
  });
}

/** How often a list is looked through while nobody answers. */
const LOOK_MS = 250;

/** The first address where somebody answers, as soon as one does; the only one at once. Throws the signal's reason. */
export async function choose(addresses: readonly string[], clock: Clock, signal: AbortSignal): Promise<string> {
  const [only = ''] = addresses;
  if (addresses.length === 1) return only;
  for (;;) {
    signal.throwIfAborted();
    for (const address of addresses) if (await answers(address, signal)) return address;
    await clock.sleep(LOOK_MS, signal);
  }
}

/** How often the address in use is looked at, where there are others. */
const CHECK_MS = 5_000;

/** Resolves when `used` answers no more and another one does; for a list of one, only by throwing the signal's reason. */
export async function outlived(addresses: readonly string[], used: string, clock: Clock, signal: AbortSignal): Promise<void> {
  for (;;) {
    await clock.sleep(CHECK_MS, signal);
    if (addresses.length === 1 || (await answers(used, signal))) continue;
    for (const address of addresses) if (address !== used && (await answers(address, signal))) return;
    signal.throwIfAborted();
  }
}
