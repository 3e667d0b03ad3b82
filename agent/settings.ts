/** What agent.conf may say: SPIRE's keys, as far as they mean something here; the others are refused by name. */
import { z } from 'zod';
import { durationOf, healthChecks, logLevel, oneOf, path, plugins, port, spiffeId, text, trustDomain } from '../core/schema.ts';

const HOUR = 3_600_000;

/** A key that SPIRE knows and that does nothing here: said, so that nobody believes in it. */
function unsupported(why: string) {
  return z
    .unknown()
    .optional()
    .refine((value) => value === undefined || value === false || value === '' || (Array.isArray(value) && value.length === 0), {
      message: `not supported by this version: ${why}`,
      params: { said: true },
    });
}

const agent = z
  .strictObject({
    trust_domain: trustDomain,
    server_address: text,
    server_port: port,
    data_dir: path.default('.'),
    socket_path: path.default('/tmp/spire-agent/public/api.sock'),
    /** Never in or below the directory of `socket_path`. Default: none. */
    admin_socket_path: path.optional(),
    /** Exactly one of these three. */
    trust_bundle_path: path.optional(),
    trust_bundle_url: z
      .string()
      .refine((url) => URL.canParse(url) && new URL(url).protocol === 'https:', {
        message: 'trust bundle URL must start with https://',
        params: { said: true },
      })
      .optional(),
    insecure_bootstrap: z.boolean().default(false),
    trust_bundle_format: oneOf('pem', 'spiffe').default('pem'),
    /** Only the first of the two shows in `ps` when given as a flag. */
    join_token: text.optional(),
    join_token_file: path.optional(),
    workload_x509_svid_key_type: oneOf('ec-p256', 'ec-p384', 'rsa-2048').default('ec-p256'),
    /** How long SVIDs are to outlast an outage of the server. */
    availability_target: durationOf({ minMs: 24 * HOUR }).optional(),
    /** Soft: SVIDs with an open stream are always kept. 0: the default. */
    x509_svid_cache_max_size: z
      .int()
      .min(0, 'should not be negative')
      .default(0)
      .transform((size) => size || 1000),
    /** Hard. 0: the default. */
    jwt_svid_cache_max_size: z
      .int()
      .min(0, 'should not be negative')
      .default(0)
      .transform((size) => size || 1000),
    disable_x509_svid_prefetch: z.boolean().default(false),
    allow_unauthenticated_verifiers: z.boolean().default(false),
    allowed_foreign_jwt_claims: z.array(z.string()).default([]),
    disable_workload_api: z.boolean().default(false),
    insecure_allow_inspector: z.boolean().default(false),
    /** Ours. Of the public socket; of each a user and container gets an eighth. */
    limits: z
      .strictObject({
        /** Default: 4096, or as many as the limit of open files leaves room for. */
        max_connections: z.int().min(16, 'must be at least 16').optional(),
        max_streams: z.int().min(16, 'must be at least 16').default(16_384),
        max_streams_per_connection: z.int().min(1, 'must be at least 1').max(100_000, 'must be at most 100000').default(1_000),
        /** Of one user and container; 0: no limit. */
        max_messages_per_second: z.int().min(0, 'must not be negative').default(10_000),
      })
      .prefault({}),
    log_file: path.optional(),
    log_format: z
      .string()
      .transform((format) => format.toLowerCase())
      .pipe(z.enum(['text', 'json']))
      .default('text'),
    log_level: logLevel.default('info'),
    log_source_location: z.boolean().default(false),
    rebootstrap_mode: oneOf('never').default('never'),
    rebootstrap_delay: unsupported('agents do not bootstrap again by themselves'),
    trust_bundle_spiffe_workload_api: unsupported('use trust_bundle_path, trust_bundle_url or insecure_bootstrap'),
    trust_bundle_unix_socket: unsupported('use trust_bundle_path or an https trust_bundle_url'),
    authorized_delegates: z.array(spiffeId).max(0, 'not supported by this version: there is no Delegated Identity API').default([]),
    /** There is none: what is off may be said to be off. */
    disable_sds_api: z.boolean().optional(),
    sds: unsupported('there is no Envoy SDS API'),
    log_selectors: unsupported('selectors of callers are told at debug level'),
    profiling_enabled: unsupported('use the profilers of Node'),
    profiling_port: unsupported('use the profilers of Node'),
    profiling_freq: unsupported('use the profilers of Node'),
    profiling_names: unsupported('use the profilers of Node'),
    experimental: z
      .strictObject({
        /** Only where the server has no push stream. */
        sync_interval: durationOf({ minMs: 1_000 }).optional(),
        use_sync_authorized_entries: z.boolean().default(true),
        jwt_svid_cache_hit_timeout: durationOf({ minMs: 5_000, maxMs: 29_999 }).optional(),
        require_pq_kem: unsupported('post-quantum key exchange cannot be required'),
        named_pipe_name: unsupported('there are no named pipes on Linux'),
        admin_named_pipe_name: unsupported('there are no named pipes on Linux'),
        ratelimit: unsupported('calls of workloads are not limited by rate'),
        broker: unsupported('there is no Broker API'),
        feature_flags: unsupported('there are none'),
      })
      .prefault({}),
  })
  .superRefine((one, context) => {
    const fault = (key: string, message: string) => context.addIssue({ code: 'custom', path: [key], message, params: { said: true } });
    const sources = [
      ['trust_bundle_path', one.trust_bundle_path !== undefined],
      ['trust_bundle_url', one.trust_bundle_url !== undefined],
      ['insecure_bootstrap', one.insecure_bootstrap],
    ] as const;
    const said = sources.filter(([, is]) => is).map(([key]) => key);
    if (said.length === 0)
      fault('trust_bundle_path', 'trust_bundle_path or trust_bundle_url must be configured unless insecure_bootstrap is set');
    if (said.length > 1) fault(said[1] ?? '', `only one of ${said.join(', ')} can be specified`);
    if (one.join_token !== undefined && one.join_token_file !== undefined)
      fault('join_token_file', 'only one of join_token or join_token_file can be specified, not both');
  });

export const agentSettings = z.strictObject({
  agent,
  plugins,
  health_checks: healthChecks,
  telemetry: unsupported('the agent has no metrics yet'),
});

export type AgentSettings = z.infer<typeof agentSettings>;
