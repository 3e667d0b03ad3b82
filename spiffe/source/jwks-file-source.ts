/** JWT authorities from files, a JWKS or a SPIFFE bundle document for each trust domain, read anew whenever they change. */
import { readFile, stat } from 'node:fs/promises';
import { type Clock, systemClock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import type { TrustDomain } from '../id.ts';
import { JwtBundle, type JwtBundleSource, JwtBundleSet, MAX_BUNDLE_BYTES } from '../jwt/jwt-bundle.ts';
import type { Logger } from '../logger.ts';
import { Held } from './held.ts';
import { tell } from './x509-source.ts';

/** Where the files are. */
export interface JwksFileSourceOptions {
  /** The file of each trust domain: keys of one vouch for no other. */
  readonly files: ReadonlyMap<TrustDomain, string>;
  /** How often the files are looked at, in milliseconds. Default 1000. */
  readonly pollMs?: number | undefined;
  /** Default: the system's. */
  readonly clock?: Clock | undefined;
  /** Told when new contents were refused; those before stay in use. Default: nobody. */
  readonly log?: Logger | undefined;
}

const DEFAULT_POLL_MS = 1_000;

/** A file that is malformed, or gone, changes nothing. Who makes it closes it. */
export class JwksFileSource implements JwtBundleSource {
  readonly #held: Held<JwtBundleSet>;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;

  /** Begins to look at once; throws nothing: `ready` does. */
  constructor(options: JwksFileSourceOptions) {
    const clock = options.clock ?? systemClock;
    this.#held = new Held(() => `no JWT authorities in ${[...options.files.values()].join(', ')} yet`, clock);
    this.#ended = this.#run(options, clock);
  }

  /** Undefined when there is no file for that domain, and while not all were read. */
  jwtBundle(trustDomain: TrustDomain): JwtBundle | undefined {
    return this.#held.newest?.jwtBundle(trustDomain);
  }

  /** What is missing, with the newest failure; undefined when each file was read. */
  get waitingFor(): string | undefined {
    return this.#held.waitingFor;
  }

  /** Calls the listener right after each change; gives what takes that back. */
  onChange(listener: () => void): () => void {
    return this.#held.onChange(listener);
  }

  /** Resolves when each file was read once; see `X509Source.ready`. */
  ready(signal?: AbortSignal): Promise<void> {
    return this.#held.ready(signal);
  }

  /** From now on every use throws CLOSED. */
  async close(): Promise<void> {
    const reason = new SpiffeError('CLOSED', undefined, 'the JWKS file source is closed');
    this.#held.end(reason);
    this.#stop.abort(reason);
    await this.#ended;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run({ files, pollMs = DEFAULT_POLL_MS, log }: JwksFileSourceOptions, clock: Clock): Promise<void> {
    const taken = new Map<TrustDomain, { readonly state: string; readonly bundle: JwtBundle }>();
    const refused = new Map<TrustDomain, string>();
    while (!this.#stop.signal.aborted) {
      let changed = false;
      for (const [trustDomain, path] of files) {
        try {
          const state = await stateOf(path);
          if (taken.get(trustDomain)?.state === state) continue;
          const text = await readFile(path);
          // written to while it was read: looked at again
          if ((await stateOf(path)) !== state) continue;
          taken.set(trustDomain, { state, bundle: JwtBundle.fromJwks(trustDomain, text) });
          refused.delete(trustDomain);
          changed = true;
        } catch (error) {
          this.#held.fail(error);
          if (refused.get(trustDomain) !== String(error)) tell(log, `JWKS file ${path} refused`, error);
          refused.set(trustDomain, String(error));
        }
      }
      if (changed && taken.size === files.size) this.#held.set(new JwtBundleSet([...taken.values()].map(({ bundle }) => bundle)));
      // ends only because it was told to
      await clock.sleep(pollMs, this.#stop.signal, { ref: false }).catch(() => {});
    }
  }
}

/** Equal while nobody has touched or swapped it. */
async function stateOf(path: string): Promise<string> {
  const { dev, ino, size, mtimeNs } = await stat(path, { bigint: true });
  if (size > MAX_BUNDLE_BYTES)
    throw new SpiffeError('BUNDLE_INVALID', 'BUNDLE_TOO_LARGE', `${path} is larger than ${MAX_BUNDLE_BYTES} bytes`);
  return [dev, ino, size, mtimeNs].join();
}
