/** Why a connection ended or never began: one word for logs and metrics, whose fault it was, and what to look at first. One table; docs/proxy-reasons.md is made of it. */

export type Fault = 'none' | 'client' | 'policy' | 'proxy' | 'upstream';

interface ReasonFacts {
  readonly fault: Fault;
  readonly words: string;
  readonly firstCheck: string;
}

export const REASONS = {
  CLOSED: { fault: 'none', words: 'both sides have ended', firstCheck: 'nothing is wrong' },
  RESET: { fault: 'none', words: 'one side was reset', firstCheck: 'the log of the program at that side' },
  SHUTDOWN: { fault: 'none', words: 'the proxy was stopped', firstCheck: 'who stopped it; --shutdown-timeout' },
  PROXY_HEADER: {
    fault: 'client',
    words: 'whoever stands before us did not say for whom he connects',
    firstCheck: 'whether it is set to send the PROXY protocol; --proxy-protocol-from',
  },
  TLS_HANDSHAKE: {
    fault: 'client',
    words: 'the TLS handshake failed',
    firstCheck: 'whether that is TLS at all, and its version: a port scan, plain HTTP and an old client look alike',
  },
  TLS_TIMEOUT: { fault: 'client', words: 'the TLS handshake took too long', firstCheck: 'the network; --connect-timeout' },
  CERTIFICATE_REFUSED: {
    fault: 'client',
    words: 'the certificate is not one that is taken here',
    firstCheck: 'the detail: expired, another trust domain, no SVID …',
  },
  POLICY_DENIED: { fault: 'policy', words: 'nothing allows this peer', firstCheck: 'the access flags; warifu intention check' },
  PLAIN_PEER_DENIED: {
    fault: 'policy',
    words: 'a local process that may not use this proxy',
    firstCheck: '--allow-uid and --allow-gid; whose process it is',
  },
  PLAIN_PEER_UNKNOWN: {
    fault: 'policy',
    words: 'it could not be told whose process connects',
    firstCheck: 'whether it runs on this machine and still lived',
  },
  LIMIT_CONNECTIONS: { fault: 'proxy', words: 'too many connections', firstCheck: '--max-concurrent-conns; the limit of open files' },
  LIMIT_PEER: { fault: 'policy', words: 'too many connections of this peer', firstCheck: '--max-conns-per-id' },
  LIMIT_HANDSHAKES: { fault: 'policy', words: 'too many handshakes at once', firstCheck: '--max-handshakes-per-second; who opens so many' },
  NO_IDENTITY: { fault: 'proxy', words: 'there is no SVID to show', firstCheck: 'warifu agent explain; whether the agent runs' },
  UPSTREAM_CONNECT: { fault: 'upstream', words: 'the target could not be connected', firstCheck: 'whether it listens there' },
  UPSTREAM_TIMEOUT: { fault: 'upstream', words: 'connecting the target took too long', firstCheck: 'the network; --connect-timeout' },
  UPSTREAM_TLS: {
    fault: 'upstream',
    words: 'the TLS handshake with the target failed',
    firstCheck: 'the log of the proxy at the other end',
  },
  UPSTREAM_REFUSED: {
    fault: 'upstream',
    words: 'the target is not who it must be',
    firstCheck: 'the detail; --verify-uri; which SVID the target shows',
  },
  SVID_EXPIRED: { fault: 'none', words: 'an SVID that opened it has ended', firstCheck: 'nothing is wrong; --rotation=keep' },
  SVID_EXPIRES: {
    fault: 'none',
    words: 'quiet, and an SVID that opened it is about to end',
    firstCheck: 'nothing is wrong; --rotation=keep',
  },
  TRUST_REMOVED: { fault: 'policy', words: 'the authority of its peer is not trusted any more', firstCheck: 'the bundles' },
  IDENTITY_TAKEN_BACK: { fault: 'policy', words: 'our own identity was taken back', firstCheck: 'the registration entry' },
  POLICY_CHANGED: { fault: 'policy', words: 'a rule has changed and forbids it now', firstCheck: 'warifu intention check' },
  TIMEOUT_CLOSE: { fault: 'none', words: 'one side had ended, the other did not', firstCheck: '--close-timeout' },
  TIMEOUT_IDLE: { fault: 'none', words: 'no byte for too long', firstCheck: '--idle-timeout' },
  TIMEOUT_LIFETIME: { fault: 'none', words: 'older than it may get', firstCheck: '--max-conn-lifetime' },
  INTERNAL: { fault: 'proxy', words: 'a fault of the proxy', firstCheck: 'report it, with the log' },
} as const satisfies Readonly<Record<string, ReasonFacts>>;

export type Reason = keyof typeof REASONS;
