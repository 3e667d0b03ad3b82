/** A line for each connection when it is over: who, by which rule, how much, how long, and why it ended. */
import type { Level } from '../core/log.ts';
import type { Clock } from '../spiffe/clock.ts';
import { refusalOf } from './access.ts';
import type { Connection, Observer } from './connection.ts';
import type { LogSettings, Quiet } from './process-settings.ts';
import { type Fault, type Reason, REASONS } from './reasons.ts';

/** Where lines go. */
export interface LineLog {
  line(level: Level, message: string, fields: Readonly<Record<string, unknown>>): void;
}

export interface ConnectionLogOptions extends Pick<LogSettings, 'connections' | 'quiet' | 'format'> {
  readonly log: LineLog;
  readonly clock: Clock;
}

export type Verdict = 'allowed' | 'denied' | 'failed';

const LEVELS: Readonly<Record<Fault, Level>> = { none: 'info', client: 'warn', policy: 'warn', proxy: 'error', upstream: 'error' };

/** Lines of one reason within a window. Beyond it they are counted, and the count is told when the window is over. */
const STORM = { lines: 100, windowMs: 10_000 };

/** ghostunnel's words, which scripts look for. */
const CLOSED = 'closed pipe';
const OPENING = 'opening pipe';
const HANDSHAKE = 'error on TLS handshake';
const DIAL = 'error on dial';
const REFUSED = 'connection refused';
const HELD_BACK = 'too many lines: connections that are not told one by one';

export function verdictOf(connection: Connection): Verdict {
  if (connection.opened) return 'allowed';
  return connection.fault === 'policy' || connection.reason === 'CERTIFICATE_REFUSED' || connection.reason === 'UPSTREAM_REFUSED'
    ? 'denied'
    : 'failed';
}

/** Undefined where nothing would ever be told. */
export function connectionLog({ log, clock, connections, quiet, format }: ConnectionLogOptions): Observer | undefined {
  if (connections === 'off' || quiet.has('all')) return undefined;
  const storm = new Storm(log, clock);
  const ended = (connection: Connection) => {
    const { fault } = connection;
    const message = messageOf(connection);
    if (quiet.has(QUIETED[message]) || (connections === 'errors' && fault === 'none')) return;
    if (fault !== 'none' && !storm.mayTell(connection.reason ?? 'INTERNAL')) return;
    log.line(LEVELS[fault], message, fieldsOf(connection));
  };
  // text is for eyes that follow a connection, and for ghostunnel's users; a machine wants it once, and whole
  if (format !== 'text' || connections !== 'all' || quiet.has('conns')) return { ended };
  return {
    ended,
    opened: (connection) => {
      const { id, listener, from, target, peerName } = connection;
      log.line('info', OPENING, { connection: id, listener, from, target, peer: plain(peerName) });
    },
  };
}

type Message = typeof CLOSED | typeof HANDSHAKE | typeof DIAL | typeof REFUSED;

const QUIETED: Readonly<Record<Message, Quiet>> = {
  [CLOSED]: 'conns',
  [HANDSHAKE]: 'handshake-errs',
  [DIAL]: 'conn-errs',
  [REFUSED]: 'conn-errs',
};

function messageOf({ opened, fault, mode, reason, handshakeMs }: Connection): Message {
  if (opened) return CLOSED;
  if (fault === 'upstream') return DIAL;
  if (reason !== undefined && OF_HANDSHAKE.has(reason) && mode === 'server' && handshakeMs === undefined) return HANDSHAKE;
  if (mode === 'client' && reason === 'NO_IDENTITY') return DIAL;
  return fault === 'none' ? CLOSED : REFUSED;
}

const OF_HANDSHAKE: ReadonlySet<Reason> = new Set(['TLS_HANDSHAKE', 'TLS_TIMEOUT', 'CERTIFICATE_REFUSED', 'POLICY_DENIED', 'NO_IDENTITY']);

/** What it knows; a value that is not known is left out. */
export function fieldsOf(connection: Connection): Readonly<Record<string, unknown>> {
  const { admission, own, plainPeer, pipe, error } = connection;
  const refusal = refusalOf(error);
  const peer = connection.peer ?? refusal?.peer;
  const fields: Record<string, unknown> = {
    connection: connection.id,
    listener: connection.listener,
    mode: connection.mode,
    verdict: verdictOf(connection),
    reason: connection.reason,
    fault: connection.fault,
    from: connection.from,
    target: connection.target,
  };
  const add = (name: string, value: unknown) => {
    if (value !== undefined) fields[name] = value;
  };
  add('via', connection.via);
  add('peer', peer && plain(String(peer.id ?? peer.leaf.subjectText)));
  if (peer) {
    fields['peer_serial'] = peer.leaf.serialHex;
    fields['peer_expires_at'] = peerEnd(peer.leaf.notAfterMs);
  }
  if (own) {
    add('own', own.id && String(own.id));
    fields['own_serial'] = own.serialHex;
    fields['own_expires_at'] = ownEnd(own.notAfterMs);
  }
  add('tls', connection.protocol);
  if (connection.plaintext) fields['plaintext'] = true;
  add('uid', plainPeer?.uid);
  add('gid', plainPeer?.gid);
  add('pid', plainPeer?.pid);
  add('by', plain(admission?.by));
  add('intention', (admission?.rule ?? refusal?.rule)?.id);
  add('shadow', admission?.shadow?.id);
  add('policy_version', admission?.policyVersion ?? refusal?.policyVersion);
  if (pipe) {
    fields['bytes_up'] = pipe.bytesUp;
    fields['bytes_down'] = pipe.bytesDown;
  }
  add('handshake_ms', rounded(connection.handshakeMs));
  add('duration_ms', rounded(connection.durationMs));
  if (error !== undefined) fields['error'] = plain(wordsOf(error));
  return fields;
}

/** ghostunnel's words for the one failure whose code alone is grepped for. */
function wordsOf(error: unknown): string {
  const words = error instanceof Error ? error.message : String(error);
  const { code } = error as NodeJS.ErrnoException;
  return code === 'EMFILE' || code === 'ENFILE' ? `${words}: too many open files` : words;
}

function rounded(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.round(ms * 1000) / 1000;
}

/** The same certificate comes again and again: its date is written once. */
function dates(): (ms: number) => string {
  let known = Number.NaN;
  let written = '';
  return (ms) => {
    if (ms !== known) written = new Date((known = ms)).toISOString();
    return written;
  };
}
const peerEnd = dates();
const ownEnd = dates();

/** Longer values are cut: an error may quote what a peer has sent. */
const MAX_CHARS = 2_048;
/** Ends of lines, commands to terminals, and what turns the direction of writing. */
const HOSTILE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

const HARMLESS = /^[ -~]*$/;

/** What a peer chose, so that no reader takes it for anything else than a value. */
function plain(text: string | undefined): string | undefined {
  if (text === undefined || (text.length <= MAX_CHARS && HARMLESS.test(text))) return text;
  const cut = text.length > MAX_CHARS ? `${text.slice(0, MAX_CHARS)}…` : text;
  return cut.replace(HOSTILE, (one) => `\\u{${(one.codePointAt(0) ?? 0).toString(16)}}`);
}

class Storm {
  readonly #log: LineLog;
  readonly #clock: Clock;
  readonly #seen = new Map<Reason, number>();
  #window: number | undefined;
  #telling = false;

  constructor(log: LineLog, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  mayTell(reason: Reason): boolean {
    const now = this.#clock.monotonic();
    if (this.#window === undefined || now - this.#window >= STORM.windowMs) {
      this.#tell();
      this.#window = now;
    }
    const seen = (this.#seen.get(reason) ?? 0) + 1;
    this.#seen.set(reason, seen);
    if (seen <= STORM.lines) return true;
    if (!this.#telling) this.#tellLater(STORM.windowMs - (now - this.#window));
    return false;
  }

  /** Also when nothing comes any more. */
  #tellLater(ms: number): void {
    this.#telling = true;
    void this.#clock
      .sleep(ms, undefined, { ref: false })
      .catch(() => {})
      .then(() => {
        this.#telling = false;
        this.#tell();
      });
  }

  #tell(): void {
    for (const [reason, seen] of this.#seen) {
      const count = seen - STORM.lines;
      const { fault } = REASONS[reason];
      if (count > 0) this.#log.line(LEVELS[fault], HELD_BACK, { reason, fault, count });
    }
    this.#seen.clear();
    this.#window = undefined;
  }
}
