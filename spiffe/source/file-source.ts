/** An identity from files, such as spiffe-helper or a secret of Kubernetes keeps them: read anew whenever they change, taken as a set or not at all. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Bundle, BundleSet } from '../bundle/bundle.ts';
import { type Clock, systemClock } from '../clock.ts';
import { SpiffeError } from '../errors.ts';
import type { TrustDomain } from '../id.ts';
import type { Logger } from '../logger.ts';
import { X509Bundle } from '../x509/x509-bundle.ts';
import { X509Svid } from '../x509/x509-svid.ts';
import { Held } from './held.ts';
import type { X509Material } from './memory-source.ts';
import { unexpired, type X509Identity } from './x509-identity.ts';
import { tell } from './x509-source.ts';

/** Where the files are, and what they are called. */
export interface X509FileSourceOptions {
  /** The names below are in it. */
  readonly directory: string;
  /** PEM, leaf first. Default `svid.pem`, as spiffe-helper. */
  readonly certificate?: string | undefined;
  /** PEM, PKCS#8. Default `svid_key.pem`. */
  readonly key?: string | undefined;
  /** PEM: the authorities of the SVID's own trust domain. Default `svid_bundle.pem`. Or, ending in `.json`, its SPIFFE bundle document. */
  readonly bundle?: string | undefined;
  /** The files of other trust domains' bundles, of the same forms: one file each, since authorities of two trust domains must never be mixed. */
  readonly federated?: ReadonlyMap<TrustDomain, string> | undefined;
  /** How often the files are looked at, in milliseconds. Default 1000. */
  readonly pollMs?: number | undefined;
  /** Default: the system's. */
  readonly clock?: Clock | undefined;
  /** Told when a new set of files was refused; the one before stays in use. Default: nobody. */
  readonly log?: Logger | undefined;
}

const DEFAULT_POLL_MS = 1_000;
/** Of one file. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

/**
 * Looks at the files themselves, not at events: those are lost behind the symlinks that atomic swaps are made of. Certificate, key and bundles must come from
 * one moment: a set that changed while it was read, or whose key is not the certificate's, is read again at the next look. Who makes it closes it.
 */
export class X509FileSource implements X509Identity {
  readonly #held: Held<X509Material>;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;

  /** Begins to look at once; throws nothing: `ready` does. */
  constructor(options: X509FileSourceOptions) {
    this.#clock = options.clock ?? systemClock;
    this.#held = new Held(() => `no X.509-SVID in ${options.directory} yet`, this.#clock);
    this.#ended = this.#run(options);
  }

  /** Throws while there was no good set of files: what was wrong with the newest, UNAVAILABLE before the first look. Later SVID_EXPIRED (no newer one has come), CLOSED. */
  get svid(): X509Svid {
    return unexpired(this.#held.value.svid, this.#clock);
  }

  /** Undefined when there is no file for that domain, and before the first good set. */
  x509Bundle(trustDomain: TrustDomain): X509Bundle | undefined {
    return this.#held.newest?.bundles.x509Bundle(trustDomain);
  }

  /** Calls the listener right after each new set of files; gives what takes that back. */
  onChange(listener: () => void): () => void {
    return this.#held.onChange(listener);
  }

  /** What is missing, with the newest failure; undefined when `svid` gives one. */
  get waitingFor(): string | undefined {
    return this.#held.waitingFor;
  }

  /** Resolves with the first good set of files; see `X509Source.ready`. */
  ready(signal?: AbortSignal): Promise<void> {
    return this.#held.ready(signal);
  }

  /** From now on every use throws CLOSED. */
  async close(): Promise<void> {
    const reason = new SpiffeError('CLOSED', undefined, 'the file source is closed');
    this.#held.end(reason);
    this.#stop.abort(reason);
    await this.#ended;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run(options: X509FileSourceOptions): Promise<void> {
    const {
      directory,
      certificate = 'svid.pem',
      key = 'svid_key.pem',
      bundle = 'svid_bundle.pem',
      federated,
      pollMs = DEFAULT_POLL_MS,
      log,
    } = options;
    const names = [certificate, key, bundle, ...(federated?.values() ?? [])];
    const paths = names.map((name) => join(directory, name));
    const trustDomains = [...(federated?.keys() ?? [])];
    let taken: string | undefined;
    let refused: string | undefined;
    while (!this.#stop.signal.aborted) {
      try {
        const before = await stateOf(paths);
        if (before !== taken) {
          const texts = await Promise.all(paths.map((path) => readFile(path)));
          if ((await stateOf(paths)) === before) {
            this.#held.set(read(texts, names, trustDomains));
            taken = before;
            refused = undefined;
          }
        }
      } catch (error) {
        this.#held.fail(error);
        const words = String(error);
        if (words !== refused) tell(log, `X.509-SVID files in ${directory} refused`, error);
        refused = words;
      }
      // ends only because it was told to
      await this.#clock.sleep(pollMs, this.#stop.signal, { ref: false }).catch(() => {});
    }
  }
}

/** Equal while nobody has touched or swapped any of them. */
async function stateOf(paths: readonly string[]): Promise<string> {
  const all = await Promise.all(
    paths.map(async (path) => {
      const found = await stat(path, { bigint: true });
      // reading from a pipe might never end
      if (!found.isFile()) throw new SpiffeError('REQUEST_INVALID', undefined, `${path} is no file`);
      const { dev, ino, size, mtimeNs } = found;
      if (size > MAX_FILE_BYTES)
        throw new SpiffeError('BUNDLE_INVALID', 'BUNDLE_TOO_LARGE', `${path} is larger than ${MAX_FILE_BYTES} bytes`);
      return [dev, ino, size, mtimeNs].join();
    }),
  );
  return all.join(';');
}

function read(texts: readonly Buffer[], names: readonly string[], trustDomains: readonly TrustDomain[]): X509Material {
  const [certificate, key, ...bundles] = texts as [Buffer, Buffer, ...Buffer[]];
  const svid = X509Svid.fromPem(certificate, key);
  const all = [svid.id.trustDomain, ...trustDomains].map((trustDomain, i) =>
    bundleOf(trustDomain, bundles[i] as Buffer, names[i + 2] as string),
  );
  return { svid, bundles: new BundleSet(all) };
}

function bundleOf(trustDomain: TrustDomain, text: Buffer, name: string): Bundle {
  const bundle = name.endsWith('.json')
    ? Bundle.fromJson(trustDomain, text)
    : new Bundle(trustDomain, { x509Authorities: X509Bundle.fromPem(trustDomain, text).authorities });
  // more likely half written than meant
  if (bundle.x509.isEmpty) throw new SpiffeError('BUNDLE_INVALID', 'X509_BUNDLE_EMPTY', `${name} has no authorities`);
  return bundle;
}
