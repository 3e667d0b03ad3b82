/** Every metric of a proxy, one a row: its type, its labels, what it tells, and how those of several processes become one. */

export interface Family {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly labels: readonly string[];
  readonly help: string;
  /** Of gauges of several processes. Counters and histograms are added up. */
  readonly merge?: 'sum' | 'min' | 'max';
  /** Upper bounds, in the family's unit. */
  readonly buckets?: readonly number[];
}

/** Handshakes: from the same machine to a far and busy one. */
const HANDSHAKE = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const;
/** Connections: from one request to those of a database's pool. */
const LIFETIME = [0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400] as const;

export const FAMILIES = {
  warifu_proxy_info: { type: 'gauge', labels: ['version', 'node'], help: '1, for what runs', merge: 'max' },
  warifu_proxy_ready: { type: 'gauge', labels: [], help: 'Whether it serves: SVID, bundle and policy are there', merge: 'min' },
  warifu_proxy_workers: { type: 'gauge', labels: [], help: 'Processes that told', merge: 'sum' },
  warifu_proxy_connections_accepted_total: { type: 'counter', labels: ['listener'], help: 'Connections that came' },
  warifu_proxy_connections_opened_total: {
    type: 'counter',
    labels: ['listener'],
    help: 'Connections that were verified, allowed, and joined with their target',
  },
  warifu_proxy_connections_ended_total: {
    type: 'counter',
    labels: ['listener', 'verdict', 'reason', 'fault'],
    help: 'Connections that are over, by why: docs/proxy-reasons.md',
  },
  warifu_proxy_connections_open: { type: 'gauge', labels: ['listener'], help: 'Connections that are joined now', merge: 'sum' },
  warifu_proxy_connections_pending: {
    type: 'gauge',
    labels: ['listener'],
    help: 'Connections whose handshake or target is waited for',
    merge: 'sum',
  },
  warifu_proxy_connections_waiting: { type: 'gauge', labels: [], help: 'Connections that wait for room, unread', merge: 'sum' },
  warifu_proxy_bytes_total: {
    type: 'counter',
    labels: ['listener', 'direction'],
    help: 'Bytes passed on: up is to the target, down is from it',
  },
  warifu_proxy_peer_connections_total: {
    type: 'counter',
    labels: ['listener', 'peer'],
    help: 'Connections opened, by the SPIFFE ID of the other end; beyond the first 100 IDs "other"',
  },
  warifu_proxy_plaintext_connections_total: {
    type: 'counter',
    labels: ['listener', 'caller'],
    help: 'Connections without TLS on a permissive port, by the address they came from; beyond the first 100 addresses "other"',
  },
  warifu_proxy_shadow_denials_total: {
    type: 'counter',
    labels: ['listener', 'intention'],
    help: 'Connections allowed that an intention in trial would have refused; beyond the first 100 intentions "other"',
  },
  warifu_proxy_handshake_seconds: {
    type: 'histogram',
    labels: ['listener'],
    help: 'From accept to the end of the TLS handshake; of a client, with connecting its target',
    buckets: HANDSHAKE,
  },
  warifu_proxy_connection_seconds: {
    type: 'histogram',
    labels: ['listener'],
    help: 'How long connections that were joined have lived',
    buckets: LIFETIME,
  },
  warifu_proxy_svid_not_after_timestamp_seconds: {
    type: 'gauge',
    labels: ['identity', 'spiffe_id'],
    help: 'When our own certificate ends, in seconds since 1970',
    merge: 'min',
  },
  warifu_proxy_svid_rotations_total: { type: 'counter', labels: ['identity'], help: 'How often another certificate took the place of one' },
  warifu_proxy_bundle_not_after_timestamp_seconds: {
    type: 'gauge',
    labels: ['identity', 'trust_domain', 'authority_id'],
    help: 'When an authority that we trust ends, in seconds since 1970',
    merge: 'min',
  },
  warifu_proxy_identity_refresh_timestamp_seconds: {
    type: 'gauge',
    labels: ['identity'],
    help: 'When SVID or bundles were last heard of, in seconds since 1970',
    merge: 'min',
  },
  warifu_proxy_intentions_info: { type: 'gauge', labels: ['version'], help: '1, for the intentions in force', merge: 'max' },
  warifu_proxy_intentions_rules: { type: 'gauge', labels: [], help: 'Intentions in force', merge: 'max' },
  warifu_proxy_intentions_loaded_timestamp_seconds: {
    type: 'gauge',
    labels: [],
    help: 'When those in force were taken, in seconds since 1970',
    merge: 'min',
  },
  warifu_proxy_intentions_refused: {
    type: 'gauge',
    labels: [],
    help: '1 while what is in the file is not in force, as it could not be read',
    merge: 'max',
  },
  warifu_proxy_last_reload_timestamp_seconds: {
    type: 'gauge',
    labels: [],
    help: 'When files were last read again because somebody asked, in seconds since 1970',
    merge: 'min',
  },
  warifu_proxy_event_loop_lag_seconds: {
    type: 'gauge',
    labels: ['percentile'],
    help: 'How late the event loop was since the last look; of several processes the worst',
    merge: 'max',
  },
  process_cpu_seconds_total: { type: 'counter', labels: [], help: 'CPU time, user and system' },
  process_resident_memory_bytes: {
    type: 'gauge',
    labels: [],
    help: 'Memory; of several processes the sum, in which shared pages count often',
    merge: 'sum',
  },
  process_open_fds: { type: 'gauge', labels: [], help: 'Open descriptors', merge: 'sum' },
  process_start_time_seconds: { type: 'gauge', labels: [], help: 'Start of the oldest process, in seconds since 1970', merge: 'min' },
} as const satisfies Readonly<Record<string, Family>>;

export type FamilyName = keyof typeof FAMILIES;
