/** What the helper's tests share: a folder, a Workload API, the helper as a process or in this one, and waiting for what it does. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readSettings } from '../../../core/schema.ts';
import { type Format, parseSettings } from '../../../core/settings-file.ts';
import { endpointsOf } from '../../../proxy/helper/endpoint.ts';
import { type HelperParts, runHelper } from '../../../proxy/helper/helper.ts';
import { type HelperFile, helperSettings } from '../../../proxy/helper/settings.ts';
import { systemClock } from '../../../spiffe/clock.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi, type WorkloadState } from '../../../spiffe/testing/workload-api.ts';
import { Daemon, type DaemonOptions } from '../../e2e/daemon.ts';
import { type Output, runToEnd, WARIFU } from '../../e2e/house.ts';
import { CountingLog } from '../../fakes/log.ts';

/** Settings as `warifu helper` reads them. */
export async function settingsOf(text: string, format: Format = 'hcl'): Promise<HelperFile> {
  return readSettings(helperSettings, await parseSettings(text, 'helper.conf', format, { octal: true }));
}

/** The three files of spiffe-helper, in `directory`. */
export const triple = (directory: string) => `
cert_dir = "${directory}"
svid_file_name = "svid.pem"
svid_key_file_name = "svid_key.pem"
svid_bundle_file_name = "svid_bundle.pem"
`;

/** Waits until `is` gives something; a file announces itself to nobody. */
export async function until<T>(what: string, is: () => T | undefined | false, withinMs = 20_000): Promise<T> {
  const started = performance.now();
  for (;;) {
    let found: T | undefined | false;
    try {
      found = is();
    } catch {
      found = undefined;
    }
    if (found !== undefined && found !== false) return found;
    if (performance.now() - started > withinMs) throw new Error(`${what}: not after ${withinMs} ms`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

export interface Running {
  readonly log: CountingLog;
  /** The exit code. */
  readonly code: Promise<number>;
  /** Ends it, as SIGTERM does. */
  stop(): Promise<number>;
}

export class Rig {
  readonly directory = mkdtempSync(join(tmpdir(), 'helper-'));
  readonly trustDomain: EphemeralTrustDomain;
  readonly api: FakeWorkloadApi;
  readonly #running: Running[] = [];
  readonly #processes: Daemon[] = [];

  constructor(state: WorkloadState = {}, trustDomain = EphemeralTrustDomain.create('example.org', { intermediate: true })) {
    this.trustDomain = trustDomain;
    this.api = new FakeWorkloadApi(this.trustDomain, state);
  }

  /** A new folder of that name. */
  folder(name: string): string {
    const path = join(this.directory, name);
    mkdirSync(path);
    return path;
  }

  read(...names: string[]): string {
    return readFileSync(join(this.directory, ...names), 'utf8');
  }

  write(name: string, text: string): string {
    const path = join(this.directory, name);
    writeFileSync(path, text);
    return path;
  }

  /** The helper in this process. */
  async start(conf: string, parts: Partial<HelperParts> = {}): Promise<Running> {
    const settings = await settingsOf(conf);
    const stop = new AbortController();
    const log = new CountingLog();
    const code = runHelper(settings, {
      log,
      clock: systemClock,
      signal: stop.signal,
      stopSignal: () => 'SIGTERM',
      env: process.env,
      endpoints: endpointsOf(settings.agent_address ?? this.api.address, {}),
      mode: settings.daemon_mode ? 'daemon' : 'init',
      waitMs: settings.init_timeout,
      onSignal: () => () => {},
      ...parts,
    });
    // whoever awaits it hears of it
    code.catch(() => {});
    const running: Running = {
      log,
      code,
      stop() {
        stop.abort(new Error('the test is over'));
        return code;
      },
    };
    this.#running.push(running);
    return running;
  }

  /** `warifu helper` as a process of its own. */
  spawn(conf: string, args: readonly string[] = [], options: DaemonOptions & { readonly before?: readonly string[] } = {}): Daemon {
    const { before = [], ...rest } = options;
    const file = this.write(`helper-${this.#processes.length}.conf`, conf);
    const command = [...before, ...WARIFU, 'helper', '-config', file, ...args];
    const daemon = new Daemon('helper', command, { ...rest, env: { SPIFFE_ENDPOINT_SOCKET: this.api.address, ...rest.env } });
    this.#processes.push(daemon);
    return daemon;
  }

  /** The same to its end. */
  async run(conf: string, args: readonly string[] = [], env: Record<string, string> = {}): Promise<Output> {
    const file = this.write('once.conf', conf);
    return await runToEnd([...WARIFU, 'helper', '-config', file, ...args], { env: { SPIFFE_ENDPOINT_SOCKET: this.api.address, ...env } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const running of this.#running) await running.stop().catch(() => {});
    for (const daemon of this.#processes) if (!daemon.end) await daemon.kill();
    await this.api[Symbol.asyncDispose]();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
