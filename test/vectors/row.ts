/** The rows of test/vectors: one input each, where it comes from, and what is to become of it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Reason } from '../../spiffe/errors.ts';

/** One file of rows each. */
export const FAMILIES = [
  'spiffe-id',
  'trust-domain',
  'match',
  'x509-svid-parse',
  'x509-svid-verify',
  'x509-profile',
  'jwt-svid',
  'bundle',
  'endpoint-address',
] as const;
export type Family = (typeof FAMILIES)[number];

export type IdInput =
  | { readonly text: string }
  | { readonly trustDomain: string; readonly path: string }
  | { readonly trustDomain: string; readonly segments: readonly string[] };

export interface TextInput {
  readonly text: string;
}

export interface MatchInput {
  readonly matcher: 'any' | 'id' | 'one-of' | 'member-of';
  /** SPIFFE IDs, or for `member-of` a trust domain. */
  readonly of: readonly string[];
  readonly id: string;
}

/** One's own SVID: base64 of certificates one behind the other and of a PKCS#8 key, or both as PEM. */
export type OwnInput = { readonly chain: string; readonly key: string } | { readonly certificatesPem: string; readonly keyPem: string };

/** A peer's: base64 of each certificate, leaf first, and of the authorities of each trust domain. */
export interface PeerInput {
  readonly chain: readonly string[];
  readonly bundles: Readonly<Record<string, readonly string[]>>;
  /** Default: `NOW_MS` of test/fakes/ca.ts. */
  readonly nowMs?: number;
}

export interface ProfileInput {
  readonly kind: 'leaf' | 'authority';
  /** The column of the profile: what we sign, what we present, what a stranger presents. */
  readonly stage: 'issued' | 'own' | 'peer';
  /** Base64. */
  readonly certificate: string;
  /** Of an authority: for which it signs. */
  readonly trustDomain: string;
}

export interface JwtInput {
  readonly token: string;
  readonly audience: readonly string[];
  /** A JWK set as text for each trust domain. */
  readonly bundles: Readonly<Record<string, string>>;
  readonly kid?: 'optional';
  readonly maxLifetimeMs?: number;
  readonly clockToleranceMs?: number;
  readonly nowMs: number;
}

export interface BundleInput {
  /** A SPIFFE bundle document, the JWK set of the Workload API, certificates one behind the other, or PEM. */
  readonly form: 'spiffe' | 'jwt' | 'x509-der' | 'x509-pem';
  readonly trustDomain: string;
  /** UTF-8; or `base64` of what is none. */
  readonly text?: string;
  readonly base64?: string;
}

export interface Inputs {
  readonly 'spiffe-id': IdInput;
  readonly 'trust-domain': TextInput;
  readonly match: MatchInput;
  readonly 'x509-svid-parse': OwnInput;
  readonly 'x509-svid-verify': PeerInput;
  readonly 'x509-profile': ProfileInput;
  readonly 'jwt-svid': JwtInput;
  readonly bundle: BundleInput;
  readonly 'endpoint-address': TextInput;
}

export interface Row<F extends Family = Family> {
  /** Unique in its file. */
  readonly name: string;
  /** The name of a test of go-spiffe, or where else the case is from. */
  readonly source: string;
  /** In the numbering of docs/spec.md; several with a space between. */
  readonly requirement?: string;
  /** Where a text has `{char}`, `loop` says what for. A text `@name` stands for what the file has under `shared`. */
  readonly input: Inputs[F];
  readonly expect: 'accept' | 'reject';
  readonly reason?: Reason;
  /** What an accepting reader finds, in the words of the door. */
  readonly sees?: string;
  /** One row for many characters: those of `accepted` are accepted, `except` is left out, all others are refused for `reason`. */
  readonly loop?: { readonly from: number; readonly to: number; readonly accepted: string; readonly except?: string };
  /** The first text of the input is repeated at its end with `with` until it is `to` long: what is too long to be kept in a file. */
  readonly fill?: { readonly member: string; readonly to: number; readonly with: string };
}

export interface File<F extends Family = Family> {
  readonly shared?: Readonly<Record<string, unknown>>;
  readonly rows: readonly Row<F>[];
}

export function fileOf(family: Family): string {
  return join(import.meta.dirname, `${family}.json`);
}

export function readFile<F extends Family>(family: F): File<F> {
  return JSON.parse(readFileSync(fileOf(family), 'utf8')) as File<F>;
}

/** The rows of a file as they are to be tried: nothing shared, nothing to be filled in. */
export function expand<F extends Family>({ shared = {}, rows }: File<F>): readonly Row<F>[] {
  return rows.flatMap(({ loop, fill, ...row }) => {
    const input = replace(row.input, (text) =>
      text.startsWith('@') && Object.hasOwn(shared, text.slice(1)) ? shared[text.slice(1)] : text,
    );
    if (fill) {
      const text = (input as Record<string, string>)[fill.member] ?? '';
      return { ...row, input: { ...input, [fill.member]: text + fill.with.repeat(Math.ceil((fill.to - text.length) / fill.with.length)) } };
    }
    if (!loop) return { ...row, input };
    return Array.from({ length: loop.to - loop.from + 1 }, (_, i) => String.fromCharCode(loop.from + i))
      .filter((char) => !loop.except?.includes(char))
      .map((char): Row<F> => {
        const one = replace(input, (text) => text.replace('{char}', () => char));
        const { reason, ...others } = row;
        const name = `${row.name} ${char.charCodeAt(0).toString(16).padStart(2, '0')}`;
        const good = loop.accepted.includes(char);
        return { ...others, name, input: one, expect: good ? 'accept' : 'reject', ...(!good && reason !== undefined && { reason }) };
      });
  });
}

/** The rows of a family, expanded. */
export function rowsOf<F extends Family>(family: F): readonly Row<F>[] {
  return expand(readFile(family));
}

/** Changes every text of a value. */
function replace<T>(value: T, change: (text: string) => unknown): T {
  const go = (one: unknown): unknown => {
    if (typeof one === 'string') return change(one);
    if (Array.isArray(one)) return one.map(go);
    return typeof one === 'object' && one !== null
      ? Object.fromEntries(Object.entries(one).map(([name, inner]) => [name, go(inner)]))
      : one;
  };
  return go(value) as T;
}
