/** From the Workload API to the keepers: each answer is offered to every output that it concerns, and each failure told to those that wait. */
import { readFile } from 'node:fs/promises';
import { fail } from '../../core/errors.ts';
import type { Log } from '../../core/log.ts';
import { runAll, type Task } from '../../core/tasks.ts';
import type { BundleSet } from '../../spiffe/bundle/bundle.ts';
import type { Clock } from '../../spiffe/clock.ts';
import { SpiffeError } from '../../spiffe/errors.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import { validateJwtSvidSync } from '../../spiffe/jwt/jwt-svid.ts';
import { Latest } from '../../spiffe/latest.ts';
import type { Logger } from '../../spiffe/logger.ts';
import { BundleSource } from '../../spiffe/source/bundle-source.ts';
import { X509Source } from '../../spiffe/source/x509-source.ts';
import { WorkloadApiClient, type X509Context } from '../../spiffe/workload-api/client.ts';
import { bundleFile, jwtFile, renewalDelayMs } from './jwt-files.ts';
import type { Keeper } from './keeper.ts';
import type { BundleOutput, JwtOutput, Output, X509Output } from './settings.ts';
import { verifyX509Svid, type X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { select, x509Files } from './x509-files.ts';

export interface Supply {
  readonly address: string;
  readonly outputs: readonly Output[];
  readonly keepers: ReadonlyMap<string, Keeper>;
  /** Of keystores, by output. */
  readonly passwords: ReadonlyMap<string, string>;
  /** A daemon has time; who waits for us in `init` has not. */
  readonly isDaemon: boolean;
  readonly log: Log;
  readonly clock: Clock;
  readonly random: () => number;
}

const FIRST_RETRY_MS = 200;

/** Until the signal aborts. Throws at once what no waiting mends: REQUEST_INVALID, UNIMPLEMENTED. */
export async function followWorkloadApi(supply: Supply, signal: AbortSignal): Promise<void> {
  const { address, clock, outputs } = supply;
  const longestMs = supply.isDaemon ? 15_000 : 1_000;
  const backoff = (n: number) => Math.min(FIRST_RETRY_MS * 2 ** (n - 1), longestMs) * (0.9 + 0.2 * supply.random());
  const client = new WorkloadApiClient({ address, clock, backoff });
  const x509 = outputs.filter((one): one is X509Output => one.kind === 'x509');
  const jwt = outputs.filter((one): one is JwtOutput => one.kind === 'jwt');
  const bundle = outputs.filter((one): one is BundleOutput => one.kind === 'bundle');
  /** The trust domain of the default identity, for outputs that mean that one. */
  const own = new Latest<TrustDomain | undefined>(undefined);
  const needsOwn = bundle.some((one) => one.format !== 'jwt_bundles' && one.trustDomain === undefined);
  const tasks: Task[] = [];
  const sources: { close(): Promise<void> }[] = [];
  const toldTo = (concerned: readonly Output[]): Logger => {
    const each = (_: string, fields?: object) => {
      for (const { name } of concerned) supply.keepers.get(name)?.lack(reasonOf(fields));
    };
    return { debug: () => {}, info: () => {}, warn: each, error: each };
  };
  if (x509.length > 0 || needsOwn) {
    const source = new X509Source({ client, clock, log: toldTo([...x509, ...(needsOwn ? bundle : [])]) });
    sources.push(source);
    tasks.push(async (either) => {
      const held = new Map<string, X509Svid>();
      for await (const context of source.changes(either)) {
        own.set(context.svids[0]?.id.trustDomain);
        for (const one of x509) offerX509(one, context, held, supply);
      }
      // it ends by itself only for what is final
      await source.ready(either);
    });
  }
  if (jwt.length > 0 || bundle.length > 0) {
    const source = new BundleSource({ client, clock, log: toldTo([...jwt, ...bundle]) });
    sources.push(source);
    if (bundle.length > 0) tasks.push((either) => offerBundles(bundle, source, own, supply, either));
    for (const one of jwt) tasks.push((either) => keepToken(one, client, source, supply, either));
  }
  try {
    await runAll(signal, ...tasks);
  } finally {
    client.close();
    await Promise.all(sources.map((source) => source.close()));
  }
}

function offerX509(output: X509Output, context: X509Context, held: Map<string, X509Svid>, supply: Supply): void {
  const { keepers, passwords, clock, log } = supply;
  const keeper = keepers.get(output.name);
  try {
    const come = select(context.svids, output.select);
    const svid = newer(held.get(output.name), come, context.bundles, clock.now());
    if (svid !== come)
      log.warn('An older SVID than the one in the files was passed over', { output: output.name, spiffe_id: String(come.id) });
    keeper?.offer({
      spiffeId: String(svid.id),
      expiresMs: svid.notAfterMs,
      lifetimeMs: svid.notAfterMs - svid.notBeforeMs,
      files(nowMs) {
        const { files } = x509Files(output, svid, context.bundles, nowMs, passwords.get(output.name));
        held.set(output.name, svid);
        return files;
      },
    });
  } catch (error) {
    keeper?.lack(error);
  }
}

/**
 * What comes, unless we hold an SVID of the same identity that was made later, lasts longer and is still borne out: an agent that comes back with what it had
 * stored does not turn files back. One that was made later is taken however short its life is.
 */
function newer(held: X509Svid | undefined, come: X509Svid, bundles: BundleSet, nowMs: number): X509Svid {
  if (!held?.id.equals(come.id) || held.notBeforeMs <= come.notBeforeMs || held.notAfterMs <= come.notAfterMs) return come;
  try {
    verifyX509Svid(held.chain, bundles, { nowMs });
    return held;
  } catch {
    return come;
  }
}

async function offerBundles(
  outputs: readonly BundleOutput[],
  source: BundleSource,
  own: Latest<TrustDomain | undefined>,
  { keepers }: Supply,
  signal: AbortSignal,
): Promise<void> {
  const offer = (bundles: BundleSet) => {
    for (const output of outputs) {
      if (output.format !== 'jwt_bundles' && output.trustDomain === undefined && own.value === undefined) continue;
      const trustDomain = own.value;
      keepers.get(output.name)?.offer({
        spiffeId: undefined,
        expiresMs: undefined,
        lifetimeMs: undefined,
        files: () => [bundleFile(output, bundles, trustDomain)],
      });
    }
  };
  await runAll(
    signal,
    async (either) => {
      const stop = () => void source.close();
      either.addEventListener('abort', stop, { once: true });
      for await (const bundles of source) offer(bundles);
      either.throwIfAborted();
      await source.ready(either);
    },
    async (either) => {
      for await (const trustDomain of own.changes(either)) if (trustDomain && source.waitingFor === undefined) offer(source.bundles);
    },
  );
}

const LONGEST_RETRY_MS = 60_000;

/** Fetches the token, and the next one when half of its life is over. */
async function keepToken(
  output: JwtOutput,
  client: WorkloadApiClient,
  bundles: BundleSource,
  supply: Supply,
  signal: AbortSignal,
): Promise<void> {
  const { clock, keepers, random } = supply;
  const keeper = keepers.get(output.name);
  const [audience = '', ...extraAudiences] = output.audiences;
  const { hint, spiffeId } = output.select;
  for (let failures = 0; ; ) {
    let delayMs: number;
    try {
      await bundles.ready(signal);
      const svids = await client.fetchJwtSvids({ audience, extraAudiences, subject: spiffeId, signal });
      const chosen = hint === undefined ? select(svids.slice(0, 1), {}) : select(svids, { hint });
      const svid = validateJwtSvidSync(chosen.token, { audience: output.audiences, bundles, clock });
      const { expiresMs } = svid;
      const lifetimeMs = expiresMs - (svid.issuedAtMs ?? clock.now());
      keeper?.offer({ spiffeId: String(svid.id), expiresMs, lifetimeMs, files: () => [jwtFile(output, svid)] });
      failures = 0;
      delayMs = renewalDelayMs(svid, clock.now(), random);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof SpiffeError && ['REQUEST_INVALID', 'UNIMPLEMENTED', 'CLOSED'].includes(error.code)) throw error;
      keeper?.lack(error);
      delayMs = Math.min(FIRST_RETRY_MS * 2 ** failures++, supply.isDaemon ? LONGEST_RETRY_MS : 1_000);
    }
    await clock.sleep(delayMs, signal);
  }
}

/** What a source tells of a failure. */
function reasonOf(fields: object | undefined): unknown {
  return fields && 'error' in fields ? fields.error : undefined;
}

/** Of a keystore: the file's first line. Throws SETTINGS_INVALID. */
export async function passwordOf(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch((cause: Error) => {
    throw fail('SETTINGS_INVALID', `password_file ${path}: ${cause.message}`, { cause });
  });
  const [password = ''] = text.split(/\r?\n/);
  if (!/^[\x20-\x7e]{6,}$/.test(password))
    throw fail(
      'SETTINGS_INVALID',
      `password_file ${path}: the first line must be six printable ASCII characters or more; Java takes no less`,
    );
  return password;
}
