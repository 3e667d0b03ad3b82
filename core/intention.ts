/** Intentions: who may call whom. The proxies apply them, the command line explains them. */
import { createHash } from 'node:crypto';
import { SpiffeError } from '../spiffe/errors.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import { parsePattern, segmentsOf } from '../spiffe/match.ts';
import { type IntentionPattern, IntentionTree } from './intention-tree.ts';

export type Action = 'allow' | 'deny';

export interface Intention {
  /** Letters, digits, `.`, `_`, `-`: a word for logs and metrics. */
  readonly id: string;
  /** Of `matchPattern`, or `ANYBODY`. */
  readonly source: string;
  readonly destination: string;
  readonly action: Action;
  /** In trial: never decides; what it would have decided is told. */
  readonly shadow: boolean;
  readonly description?: string;
}

/**
 * The pattern of every SPIFFE ID of whatever trust domain; only those come here that a bundle has vouched for. A lone star is no pattern: some would write it
 * for everybody of their own trust domain.
 */
export const ANYBODY = 'spiffe://*/**';

export interface Verdict {
  readonly allowed: boolean;
  /** The intention that decided; undefined: the default. */
  readonly rule: Intention | undefined;
  /** The intention in trial that would have decided otherwise. */
  readonly shadow: Intention | undefined;
  /** A sentence for people: what was seen, which intention decided, why it comes before the others. Made when it is read. */
  readonly why: string;
}

/** What one intention has to do with a call. */
export interface Explanation {
  readonly rule: Intention;
  readonly matches: boolean;
  readonly why: string;
}

/** Intentions of the same source and destination: one that decides, one in trial. */
interface Pair {
  rule: Intention | undefined;
  shadow: Intention | undefined;
}

interface Callers {
  readonly pairs: IntentionTree<Pair>;
  readonly rules: Set<Intention>;
}

/**
 * The intention with the most exact destination decides, and of those the one with the most exact source: patterns are compared segment by segment from the
 * left, where a word is more exact than `*`, `*` more than `**`, and anybody the least. Two that are as exact and match the same call are the same patterns,
 * which `from` refuses; so the order of the file counts for nothing. Never changes.
 */
export class Intentions {
  /** The most exact first. */
  readonly rules: readonly Intention[];
  readonly default: Action;
  /** 16 hex digits of a SHA-256: equal for intentions that decide alike, in whatever order they stood. Descriptions do not count. */
  readonly version: string;
  readonly #byDestination = new IntentionTree<Callers>();
  readonly #bySource = new IntentionTree<Set<Intention>>();

  private constructor(rules: readonly Intention[], preset: Action) {
    const ids = new Set<string>();
    const ordered = rules.map((written) => {
      const rule: Intention = Object.freeze({ ...written });
      const { id } = rule;
      const refuse = (reason: string, why: string) =>
        new SpiffeError('REQUEST_INVALID', `INTENTION_${reason}`, `intention ${JSON.stringify(id)}: ${why}`);
      if (!isIntentionId(id)) throw refuse('ID', INTENTION_ID_WORDS);
      if (ids.has(id)) throw refuse('REPEATED', 'there is another of this id');
      ids.add(id);
      if (!isAction(rule.action)) throw refuse('ACTION', 'the action must be allow or deny');
      const destination = parseIntentionPattern(rule.destination);
      const source = parseIntentionPattern(rule.source);
      const callers = this.#byDestination.at(destination, () => ({ pairs: new IntentionTree(), rules: new Set() }));
      callers.rules.add(rule);
      this.#bySource.at(source, () => new Set()).add(rule);
      const pair = callers.pairs.at(source, () => ({ rule: undefined, shadow: undefined }));
      const kind = rule.shadow ? 'shadow' : 'rule';
      const other = pair[kind];
      if (other) throw refuse('SAME', sameAs(other));
      pair[kind] = rule;
      // of those that are as exact none can match what another matches: by name
      return { rule, order: [rankOf(destination), rule.destination, rankOf(source), rule.source, rule.shadow ? 0 : 1].join(' ') };
    });
    if (!isAction(preset)) throw new SpiffeError('REQUEST_INVALID', 'INTENTION_DEFAULT', 'the default of intentions must be allow or deny');
    this.rules = Object.freeze(ordered.sort((a, b) => (a.order < b.order ? -1 : 1)).map(({ rule }) => rule));
    this.default = preset;
    this.version = versionOf(this.rules, preset);
  }

  /** Throws ID_INVALID for what is no pattern, REQUEST_INVALID for an id that comes twice, and for two of the same patterns that are both, or neither, in trial. */
  static from(rules: readonly Intention[], options: { readonly default: Action }): Intentions {
    return new Intentions(rules, options.default);
  }

  /** @param source whose SVID has been verified, as has that of `destination` */
  check(source: SpiffeId, destination: SpiffeId): Verdict {
    let rule: Intention | undefined;
    let shadow: Intention | undefined;
    this.#find(source, destination, (pair) => {
      // of two with the same patterns the one in trial comes first: it is there to take the other's place
      shadow ??= pair.shadow;
      rule = pair.rule;
      return rule !== undefined;
    });
    return new Decided(this, source, destination, rule, shadow);
  }

  /** All intentions that match a call, those in trial too, the most exact first. */
  matching(source: SpiffeId, destination: SpiffeId): readonly Intention[] {
    const found: Intention[] = [];
    this.#find(source, destination, ({ rule, shadow }) => {
      if (shadow) found.push(shadow);
      if (rule) found.push(rule);
      return false;
    });
    return found;
  }

  /** All intentions about calls to a destination, the most exact first. */
  toDestination(destination: SpiffeId): readonly Intention[] {
    const found = new Set<Intention>();
    this.#byDestination.find(destination.trustDomain.name, segmentsOf(destination), ({ rules }) => {
      for (const rule of rules) found.add(rule);
      return false;
    });
    return this.rules.filter((rule) => found.has(rule));
  }

  /** All intentions about calls of a source, the most exact first. */
  fromSource(source: SpiffeId): readonly Intention[] {
    const found = new Set<Intention>();
    this.#bySource.find(source.trustDomain.name, segmentsOf(source), (rules) => {
      for (const rule of rules) found.add(rule);
      return false;
    });
    return this.rules.filter((rule) => found.has(rule));
  }

  /** What each intention has to do with a call, the most exact first. */
  explain(source: SpiffeId, destination: SpiffeId): readonly Explanation[] {
    const matching = new Set(this.matching(source, destination));
    const [sources, destinations] = [new Set(this.fromSource(source)), new Set(this.toDestination(destination))];
    let decided: Intention | undefined;
    let tried: Intention | undefined;
    return this.rules.map((rule) => {
      const explained = (why: string): Explanation => ({ rule, matches: matching.has(rule), why });
      if (!matching.has(rule)) {
        const other = [!sources.has(rule) && 'source', !destinations.has(rule) && 'destination'].filter(Boolean);
        return explained(`is about another ${other.join(' and another ')}`);
      }
      const trial = rule.shadow ? 'is in trial and ' : '';
      if (decided) return explained(`${trial}comes after ${decided.id}: ${lessExact(rule, decided)}`);
      if (!rule.shadow) {
        decided = rule;
        return explained(`decides: ${rule.action}`);
      }
      if (tried) return explained(`is in trial and comes after ${tried.id}, which is in trial too: ${lessExact(rule, tried)}`);
      tried = rule;
      return explained(`is in trial and would decide: ${rule.action}`);
    });
  }

  #find(source: SpiffeId, destination: SpiffeId, take: (pair: Pair) => boolean): void {
    const [name, path] = [source.trustDomain.name, segmentsOf(source)];
    this.#byDestination.find(destination.trustDomain.name, segmentsOf(destination), ({ pairs }) => pairs.find(name, path, take));
  }
}

class Decided implements Verdict {
  readonly allowed: boolean;
  readonly rule: Intention | undefined;
  readonly shadow: Intention | undefined;
  readonly #intentions: Intentions;
  readonly #source: SpiffeId;
  readonly #destination: SpiffeId;

  constructor(intentions: Intentions, source: SpiffeId, destination: SpiffeId, rule: Intention | undefined, shadow: Intention | undefined) {
    const action = rule ? rule.action : intentions.default;
    this.allowed = action === 'allow';
    this.rule = rule;
    this.shadow = shadow && shadow.action !== action ? shadow : undefined;
    this.#intentions = intentions;
    this.#source = source;
    this.#destination = destination;
  }

  get why(): string {
    const { rule, shadow } = this;
    const call = `${this.#source} ${this.allowed ? 'may' : 'may not'} call ${this.#destination}`;
    const decided = rule
      ? `${aboutRule(rule)}${this.#before(rule)}`
      : `no intention matches, and the default is ${this.#intentions.default}`;
    const trial = shadow ? `; in trial, intention ${shadow.id} would ${shadow.action} it` : '';
    return `${call}: ${decided}${trial}`;
  }

  #before(rule: Intention): string {
    const [next, ...more] = this.#intentions.matching(this.#source, this.#destination).filter((other) => other !== rule && !other.shadow);
    if (!next) return ', the only one that matches';
    return `, and comes before ${next.id}, since ${lessExact(next, rule)}${more.length === 0 ? '' : `, and before ${more.length} more`}`;
  }
}

function aboutRule({ id, action, source, destination }: Intention): string {
  return `intention ${id} ${action === 'allow' ? 'allows' : 'denies'} ${source} to call ${destination}`;
}

function lessExact(later: Intention, earlier: Intention): string {
  if (later.destination !== earlier.destination) return 'its destination is less exact';
  if (later.source !== earlier.source) return 'its destination is the same and its source less exact';
  return 'its patterns are the same';
}

/** How the words of a pattern compare: texts of which the more exact comes first. */
function rankOf({ trustDomain, segments, deep }: IntentionPattern): string {
  return `${trustDomain === undefined ? 1 : 0}${segments.map((one) => (one === '*' ? 1 : 0)).join('')}${deep ? 2 : ''}`;
}

/** Throws ID_INVALID. */
export function parseIntentionPattern(pattern: string): IntentionPattern {
  return pattern === ANYBODY ? { trustDomain: undefined, segments: [], deep: true } : parsePattern(pattern);
}

export const INTENTION_ID_WORDS = 'an id is 1 to 128 letters, digits, ".", "_" and "-"';

export function isIntentionId(id: string): boolean {
  return /^[A-Za-z0-9._-]{1,128}$/.test(id);
}

/** Two of the same source and destination. */
export function sameAs(other: Pick<Intention, 'id' | 'shadow'>): string {
  return `the same source and destination as ${other.id}${other.shadow ? ', which is in trial too' : ''}: one of both must go`;
}

/** Rules may come from elsewhere than our compiler has seen. */
function isAction(action: string): boolean {
  return action === 'allow' || action === 'deny';
}

function versionOf(rules: readonly Intention[], preset: Action): string {
  const lines = rules.map(({ id, source, destination, action, shadow }) => [id, source, destination, action, shadow]);
  return createHash('sha256')
    .update(JSON.stringify([preset, lines]))
    .digest('hex')
    .slice(0, 16);
}
