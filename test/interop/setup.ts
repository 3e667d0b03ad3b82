/** Builds the workloads that others' libraries make (Go, Java, Python) and drives them by JSON lines. What can't be built fails by name. */
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ROOT } from '../e2e/house.ts';
import { Timeline } from '../e2e/timeline.ts';

export type Language = 'go' | 'java' | 'python' | 'node';

const CACHE = join(ROOT, '.warifu', 'interop');
const SOURCES = join(ROOT, 'test', 'interop');

function tool(what: string, command: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = {}): void {
  const { status, error, stdout, stderr } = spawnSync(command, args, { cwd, env: { ...process.env, ...env }, encoding: 'utf8' });
  if (error) throw new Error(`the interop suite needs ${what}: \`${command}\` can't be run (${error.message})`);
  if (status !== 0)
    throw new Error(`the interop suite needs ${what}: \`${command} ${args.join(' ')}\` exits ${status}:\n${stdout}${stderr}`);
}

/** SHA-256 over names and contents of every file below: what a build depends on. */
function fingerprint(folder: string): string {
  const hash = createHash('sha256');
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()) {
    const file = join(folder, name);
    if (/\.(java|xml|txt|py)$/.test(name)) hash.update(name).update('\0').update(readFileSync(file)).update('\0');
  }
  return hash.digest('hex');
}

/** Runs `build` in an empty folder of the cache unless the last build there had the same sources. */
function once(language: Language, build: (out: string) => void): string {
  const out = join(CACHE, language);
  const stamp = join(out, 'built-from');
  const now = fingerprint(join(SOURCES, language));
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === now) return out;
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  build(out);
  writeFileSync(stamp, now);
  return out;
}

/** How each language's workload is built; gives its command. */
const BUILD: Readonly<{ [L in Language]: () => readonly string[] }> = {
  go() {
    const out = join(CACHE, 'go-workload');
    mkdirSync(CACHE, { recursive: true });
    // Go has a build cache of its own
    tool('Go 1.24 or newer', 'go', ['build', '-o', out, '.'], join(SOURCES, 'go'), { GOFLAGS: '-mod=readonly', CGO_ENABLED: '0' });
    return [out];
  },
  java() {
    const out = once('java', (folder) => {
      tool('Maven and a JDK 17 or newer', 'mvn', ['-q', '-B', 'package', `-Dout=${folder}`], join(SOURCES, 'java'));
    });
    return ['java', '-XX:TieredStopAtLevel=1', '-cp', `${join(out, 'interop.jar')}:${join(out, 'lib', '*')}`, 'warifu.interop.Main'];
  },
  python() {
    const out = once('python', (folder) => {
      const python = ['python3.13', 'python3.12', 'python3.11', 'python3.10'].find((name) => spawnSync(name, ['--version']).status === 0);
      tool('Python 3.10 or newer with venv', python ?? 'python3.10', ['-m', 'venv', folder], CACHE);
      const pip = [
        '-m',
        'pip',
        'install',
        '-q',
        '--no-input',
        '--disable-pip-version-check',
        '-r',
        join(SOURCES, 'python', 'requirements.txt'),
      ];
      tool("pip and its index, for py-spiffe's pinned versions", join(folder, 'bin', 'python'), pip, CACHE);
    });
    return [join(out, 'bin', 'python'), '-u', join(SOURCES, 'python', 'client.py')];
  },
  node: () => [process.execPath, join(SOURCES, 'node', 'client.ts')],
};

const built = new Map<Language, readonly string[]>();

/** A failure that a workload told us: its library's words and, if there was one, the gRPC status as its language spells it. */
export class WorkloadError extends Error {
  override readonly name = 'WorkloadError';
  /** `PERMISSION_DENIED` and the like, in every language. */
  readonly code: string;
  constructor(message: string, code: string) {
    super(message);
    this.code = code;
  }
}

export interface X509Answer {
  readonly svids: readonly { readonly id: string; readonly hint: string; readonly chain: readonly string[]; readonly notAfter: number }[];
  readonly bundles: { readonly [trustDomain: string]: number };
}

export interface JwtAnswer {
  readonly id: string;
  readonly hint: string;
  readonly audience: readonly string[];
  readonly expiry: number;
  readonly token: string;
}

export interface LoadAnswer {
  readonly good: number;
  readonly failures: readonly { readonly message: string; readonly code: string }[];
  readonly elapsedMs: number;
}

export interface BundleAnswer {
  /** Base64 of each authority's DER. */
  readonly x509: readonly string[];
  readonly jwt: readonly string[];
  readonly sequence: number;
}

/** An input of a family of test/vectors, as judge.go reads it: bytes in base64. */
export interface Exhibit {
  readonly family: string;
  readonly [field: string]: unknown;
}

/** What another library saw in it, or its words of refusal. */
export type Verdict = { readonly saw: string } | { readonly refused: string };

export type Happening =
  | { readonly event: 'update'; readonly data: X509Answer; readonly atMs: number }
  | { readonly event: 'error' | 'refused'; readonly data: { readonly message: string; readonly code: string }; readonly atMs: number }
  | { readonly event: 'listening'; readonly data: { readonly port: number }; readonly atMs: number }
  | { readonly event: 'served'; readonly data: { readonly peer: string; readonly protocol?: string }; readonly atMs: number };

/** How another library takes part in TLS: go-spiffe in every way (wrappers.go), py-spiffe's spiffe-tls over bare sockets, in the modes mtls and tls. */
export interface ForeignTls {
  /** The Workload API that gives the SVID. */
  readonly addr: string;
  readonly mode: 'mtls' | 'tls' | 'mtls-web';
  /** The other end that it wants; '': anybody who is verified. */
  readonly peer: string;
  /** The Workload API whose bundles judge the other end. Default: `addr`. */
  readonly bundles?: string;
  /** For mtls-web, PEM: what its server shows, and what its client trusts. */
  readonly certificate?: string;
  readonly key?: string;
  readonly roots?: string;
  /** Go alone, over HTTP and bare sockets: speaks no TLS after 1.2. */
  readonly oldTls?: boolean;
}

export interface ForeignClient extends ForeignTls {
  readonly kind: 'tls' | 'https' | 'http2' | 'grpc';
  readonly to: string;
}

export interface ForeignServer extends ForeignTls {
  /** `http`: HTTP/1.1 and HTTP/2, as the client wants. */
  readonly kind: 'tls' | 'http' | 'grpc';
  /** Tells of nobody who was served or refused. */
  readonly quiet?: boolean;
}

export interface SteadyAnswer {
  readonly asked: number;
  readonly failed: number;
  /** The first twenty. */
  readonly failures: readonly { readonly message: string }[];
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** Every op, what it takes and what it answers. The same in each language. */
export interface Ops {
  'x509.fetch': [{ addr: string }, X509Answer];
  'x509.source': [{ addr: string }, Pick<X509Answer, 'svids'>];
  'x509.bundles': [{ addr: string }, Pick<X509Answer, 'bundles'>];
  'jwt.fetch': [{ addr: string; audience: readonly string[]; subject?: string }, { readonly svids: readonly JwtAnswer[] }];
  /** Asks the Workload API whether the token holds. */
  'jwt.validate': [{ addr: string; token: string; audience: readonly string[] }, JwtAnswer];
  /** With a token: validates it in the library itself, by the bundles it follows. Without: fetches one. */
  'jwt.source': [{ addr: string; audience: readonly string[]; token?: string }, JwtAnswer];
  'jwt.bundles': [{ addr: string }, { readonly bundles: { readonly [trustDomain: string]: readonly string[] } }];
  'bundle.parse': [{ trustDomain: string; document: string }, BundleAnswer];
  /** Go alone: what the library makes of each input. */
  judge: [{ exhibits: readonly Exhibit[] }, { readonly verdicts: readonly Verdict[] }];
  'mtls.dial': [{ addr: string; to: string; peer: string; message: string }, { readonly reply: string; readonly peer: string }];
  /** Go alone: as many calls as `durationMs` has room for, `width` at a time. */
  rate: [
    { addr: string; kind: 'x509.warm' | 'x509.new' | 'jwt.same' | 'jwt.fresh'; width: number; durationMs: number },
    { readonly calls: number; readonly elapsedMs: number; readonly medianMs: number; readonly p99Ms: number },
  ];
  /** Go and Python: one question by a client of its own; `peer` is the server as the library tells it. */
  'wrapper.ask': [ForeignClient, { readonly reply: string; readonly peer: string; readonly protocol: string }];
  /** Go alone: so many questions a second by one client, whatever becomes of those before; each must be answered by `message`. */
  'wrapper.steady': [ForeignClient & { message: string; perSecond: number; durationMs: number }, SteadyAnswer];
  load: [{ addr: string; kind: 'x509' | 'jwt'; calls: number; connections: number; audience?: readonly string[] }, LoadAnswer];
}

/** Ops that go on until stopped. */
export interface Following {
  'x509.watch': { addr: string };
  'mtls.listen': { addr: string; peer: string };
  /** Go and Python. */
  'wrapper.listen': ForeignServer;
}

export interface Follow {
  readonly happenings: Timeline<Happening>;
  /** The first update at or after `from` that satisfies `wanted`. */
  update(
    wanted?: (answer: X509Answer) => boolean,
    options?: { from?: number; withinMs?: number; what?: string },
  ): Promise<{ readonly data: X509Answer; readonly atMs: number }>;
  /** The next failure that the library reports to its user. */
  error(wanted?: (code: string, message: string) => boolean, options?: { from?: number; withinMs?: number }): Promise<void>;
  stop(): Promise<void>;
}

export interface Listening extends Follow {
  /** `host:port` */
  readonly to: string;
}

const running = new Set<ChildProcessWithoutNullStreams>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** CamelCase of Go and UPPER_CASE of the others, as one. */
function statusName(code: string): string {
  return code === code.toUpperCase() ? code : code.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase();
}

export interface Workload {
  readonly language: Language;
  readonly pid: number;
  /** The executable as the kernel names it: what `unix:path` selects. */
  readonly selector: string;
  call<O extends keyof Ops>(op: O, input: Ops[O][0]): Promise<Ops[O][1]>;
  follow<O extends keyof Following>(op: O, input: Following[O]): Follow;
  /** Waits, by a watch of its own, until it has exactly these SPIFFE IDs; the library's own asking again covers the moment before. */
  holds(addr: string, ...ids: readonly string[]): Promise<X509Answer>;
  /** Waits until a fetch is refused; throws when it is still answered after 5 s. */
  losesAll(addr: string): Promise<WorkloadError>;
  /** Serves mTLS on a port of 127.0.0.1; gives `host:port`. */
  listen(input: Following['mtls.listen']): Promise<Listening>;
  /** Serves by the library's own TLS on a port of 127.0.0.1. */
  serve(input: Following['wrapper.listen']): Promise<Listening>;
  close(): Promise<void>;
}

interface Answer {
  readonly id: number;
  readonly event?: Happening['event'];
  readonly data?: unknown;
  readonly result?: unknown;
  readonly error?: { readonly message: string; readonly code: string };
}

/** Builds the language's workload when needed, starts it, and waits for its hello. */
export async function startWorkload(language: Language): Promise<Workload> {
  let command = built.get(language);
  if (!command) built.set(language, (command = BUILD[language]()));
  const [file = '', ...args] = command;
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  running.add(child);

  const stderr: string[] = [];
  createInterface({ input: child.stderr }).on('line', (line) => {
    stderr.push(line);
    if (stderr.length > 200) stderr.shift();
  });
  const waiting = new Map<number, { done: (result: unknown) => void; fail: (reason: Error) => void }>();
  const following = new Map<number, Timeline<Happening>>();
  const ended = new Promise<void>((resolve) => {
    const end = (why: string) => {
      running.delete(child);
      const words = `the ${language} workload ${why}\n${stderr.slice(-20).join('\n')}`;
      for (const { fail } of waiting.values()) fail(new Error(words));
      for (const timeline of following.values()) timeline.end(words);
      resolve();
    };
    child.once('error', (fault) => end(`did not start: ${fault.message}`));
    child.once('close', (code, signal) => end(`ended (${signal ?? code})`));
  });
  child.stdin.on('error', () => {}); // its end says more

  createInterface({ input: child.stdout }).on('line', (line) => {
    const atMs = performance.now();
    const answer = JSON.parse(line) as Answer;
    if (answer.event) {
      const data = answer.event === 'error' || answer.event === 'refused' ? told(answer.data) : answer.data;
      following.get(answer.id)?.push({ event: answer.event, data, atMs } as Happening);
      return;
    }
    const one = waiting.get(answer.id);
    waiting.delete(answer.id);
    if (answer.error) one?.fail(new WorkloadError(`${language}: ${answer.error.message}`, statusName(answer.error.code)));
    else one?.done(answer.result);
  });

  let last = 0;
  const ask = (op: string, input: object): { id: number; result: Promise<unknown> } => {
    const id = ++last;
    const result = new Promise<unknown>((done, fail) => waiting.set(id, { done, fail }));
    child.stdin.write(`${JSON.stringify({ ...input, id, op })}\n`);
    return { id, result };
  };

  const follow = (op: keyof Following, input: object): Follow => {
    const happenings = new Timeline<Happening>();
    const { id, result } = ask(op, input);
    following.set(id, happenings);
    result.then(
      () => happenings.end(`${op} of ${language} was stopped`),
      (reason: unknown) => happenings.end(`${op} of ${language} ended: ${reason instanceof Error ? reason.message : String(reason)}`),
    );
    return {
      happenings,
      async update(wanted = () => true, options = {}) {
        const found = await happenings.find((one) => one.event === 'update' && wanted(one.data), {
          what: `an X.509 update at ${language}`,
          ...options,
        });
        if (found.event !== 'update') throw new Error('not an update');
        return found;
      },
      async error(wanted = () => true, options = {}) {
        await happenings.find((one) => one.event === 'error' && wanted(one.data.code, one.data.message), {
          what: `an error at ${language}`,
          ...options,
        });
      },
      async stop() {
        await ask('stop', { target: id }).result;
        await result.catch(() => {});
        following.delete(id);
      },
    };
  };

  const listening = async <O extends 'mtls.listen' | 'wrapper.listen'>(op: O, input: Following[O]): Promise<Listening> => {
    const serving = follow(op, input);
    const first = await serving.happenings.find((one) => one.event === 'listening', { what: `${language} listens` });
    if (first.event !== 'listening') throw new Error('not listening');
    return { ...serving, to: `127.0.0.1:${first.data.port}` };
  };

  await ask('hello', {}).result;
  const pid = child.pid ?? 0;
  // the one place where an answer of another language becomes a type: the ops' table says which
  const call = <O extends keyof Ops>(op: O, input: Ops[O][0]) => ask(op, input).result as Promise<Ops[O][1]>;
  return {
    language,
    pid,
    selector: `unix:path:${readlinkSync(`/proc/${pid}/exe`)}`,
    call,
    follow,
    async holds(addr, ...ids) {
      const watch = follow('x509.watch', { addr });
      try {
        const wanted = [...ids].sort().join();
        const { data } = await watch.update(
          ({ svids }) =>
            svids
              .map(({ id }) => id)
              .sort()
              .join() === wanted,
          {
            what: `${language} holds ${wanted}`,
          },
        );
        return data;
      } finally {
        await watch.stop();
      }
    },
    async losesAll(addr) {
      for (const started = performance.now(); performance.now() - started < 5_000; ) {
        const fault: unknown = await call('x509.fetch', { addr }).then(
          () => undefined,
          (reason: unknown) => reason,
        );
        if (fault instanceof WorkloadError) return fault;
        if (fault !== undefined) throw fault;
      }
      throw new Error(`${language} is still answered after 5 s`);
    },
    listen: (input) => listening('mtls.listen', input),
    serve: (input) => listening('wrapper.listen', input),
    async close() {
      child.stdin.end();
      const timer = setTimeout(() => child.kill('SIGKILL'), 5_000);
      await ended;
      clearTimeout(timer);
    },
  };
}

function told(data: unknown): { message: string; code: string } {
  const { message, code } = data as { message: string; code: string };
  return { message, code: statusName(code) };
}
