/** The server's settings: SPIRE's keys as far as they exist here, and ours; in the file's own names. */
import * as z from 'zod';
import {
  durationMs,
  durationOf,
  healthChecks,
  integer,
  logLevel,
  oneOf,
  path,
  plugins,
  port,
  spiffeId,
  text,
  trustDomain,
} from '../core/schema.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** A key that SPIRE has and this version has not: refused by its name, so that nobody believes it works. */
const notHere = (instead: string) =>
  z.undefined({ error: `is a setting of SPIRE that this version does not have${instead && `: ${instead}`}` }).optional();

const keyType = oneOf('rsa-2048', 'rsa-4096', 'ec-p256', 'ec-p384');

const server = z.strictObject({
  trust_domain: trustDomain,
  data_dir: path,
  bind_address: text.default('0.0.0.0'),
  bind_port: port.default(8081),
  socket_path: path.default('/tmp/spire-server/private/api.sock'),
  admin_ids: z.array(spiffeId).default([]),
  agent_ttl: durationMs.optional(),
  default_x509_svid_ttl: durationOf({ minMs: 1000 }).default(HOUR_MS),
  default_jwt_svid_ttl: durationOf({ minMs: 1000 }).default(5 * MINUTE_MS),
  ca_ttl: durationOf({ minMs: 2000 }).default(DAY_MS),
  ca_key_type: keyType.default('ec-p256'),
  /** Default: ca_key_type. */
  jwt_key_type: keyType.optional(),
  ca_subject: z
    .strictObject({
      country: z.array(text).default([]),
      organization: z.array(text).default([]),
      common_name: z.string().default(''),
    })
    .optional(),
  /** Ours. What the trust domain's bundle holds: the root of the external PKI, or the intermediate below it that this server signs with. */
  bundle_anchor: oneOf('root', 'intermediate').default('root'),
  jwt_issuer: text.optional(),
  disable_jwt_svids: z.boolean().default(false),
  audit_log_enabled: z.boolean().default(false),
  log_level: logLevel.default('info'),
  log_format: oneOf('text', 'json').default('text'),
  log_file: path.optional(),
  log_source_location: z.boolean().default(false),
  prune_attested_nodes_expired_for: durationMs.optional(),
  prune_attested_nodes_batch_size: integer.min(1).default(1000),
  prune_tofu_nodes: z.boolean().default(false),
  ratelimit: z
    .strictObject({ attestation: z.boolean().default(true), signing: z.boolean().default(true) })
    .default({ attestation: true, signing: true }),
  /** Ours, and meant as a flag: the datastore was put back from a backup. */
  restored: z.boolean().default(false),
  /** Ours. Node's debugger may be opened: whoever can reach its port owns this trust domain. */
  insecure_allow_inspector: z.boolean().default(false),
  max_attested_node_info_staleness: notHere('agents are always looked up in memory, which is never stale'),
  proxy_protocol_trusted_cidrs: notHere(''),
  federation: notHere('set bundles of other trust domains with `bundle set`'),
  experimental: notHere('take the block out'),
  profiling_enabled: notHere(''),
  profiling_port: notHere(''),
  profiling_freq: notHere(''),
  profiling_names: notHere(''),
});

/** `plugin_data` of DataStore "sql". Default: a file in the data_dir. */
export const datastoreSettings = z.strictObject({
  database_type: oneOf('sqlite3').default('sqlite3'),
  /** A path. SPIRE's `file:` before it is taken; options of the C library behind a `?` are not. */
  connection_string: z
    .string()
    .refine((written) => !/[?\0]/.test(written), 'must be a path, without options')
    .refine((written) => !written.includes(':memory:'), 'must be a path: what is only in memory is lost at each restart')
    .transform((written) => written.replace(/^file:(\/\/(?=\/))?/, ''))
    .optional(),
  ro_connection_string: notHere('only for databases with replicas'),
  root_ca_path: notHere('only for PostgreSQL and MySQL'),
  client_cert_path: notHere('only for PostgreSQL and MySQL'),
  client_key_path: notHere('only for PostgreSQL and MySQL'),
  /** Pools and migrations of SPIRE's: without meaning for one file, and harmless. */
  max_open_conns: integer.optional(),
  max_idle_conns: integer.optional(),
  conn_max_lifetime: durationMs.optional(),
  disable_migration: z.literal(false).optional(),
});

/** SPIRE's file as a whole. */
export const serverSettings = z.strictObject({
  server,
  plugins,
  health_checks: healthChecks,
  telemetry: z
    .strictObject({
      Prometheus: z.strictObject({ host: text.default('localhost'), port, tls: notHere('') }).optional(),
      MetricPrefix: text.default('spire_server'),
      EnableTrustDomainLabel: z.boolean().default(false),
      EnableHostnameLabel: z.boolean().default(true),
      InMem: z.strictObject({}).optional(),
      DogStatsd: notHere('use Prometheus'),
      Statsd: notHere('use Prometheus'),
      M3: notHere('use Prometheus'),
      AllowedPrefixes: notHere(''),
      BlockedPrefixes: notHere(''),
      AllowedLabels: notHere(''),
      BlockedLabels: notHere(''),
    })
    .optional(),
});

export type ServerSettings = z.infer<typeof serverSettings>;
