/** What `warifu helper` is told: spiffe-helper's 28 keys, read as it reads them, and ours beside them. */
import { constants } from 'node:os';
import * as z from 'zod';
import { durationOf, logLevel, oneOf, parsedBy, path, port, spiffeId, text, trustDomain } from '../../core/schema.ts';

/** Permissions of a file, and whether they were written as a decimal number, which is seldom meant. */
export interface FileMode {
  readonly bits: number;
  readonly decimal?: string;
}

/** As Go reads a number for spiffe-helper: with a leading zero octal, else decimal. 0 is the default, as there. */
const fileMode = parsedBy((written): FileMode | undefined => {
  if (/^0o?[0-7]*$/.test(written)) return modeOf(Number.parseInt(written.replace('o', '') || '0', 8), written);
  if (!/^[1-9][0-9]{0,8}$/.test(written)) throw new Error(`${written} is no file mode: write 0640 (in quotes in YAML and JSON)`);
  return modeOf(Number(written), written, written);
}).optional();

function modeOf(bits: number, written: string, decimal?: string): FileMode | undefined {
  if (bits === 0) return undefined;
  if (bits <= 0o777) return decimal === undefined ? { bits } : { bits, decimal };
  const hint = decimal === undefined ? '' : `: it is decimal, and would be mode 0${bits.toString(8)}; write 0${decimal}`;
  throw new Error(`${written} is no file mode${hint}`);
}

/** A name in the output's directory. Names that begin with two dots are ours. */
const fileName = text.refine(
  (name) => !name.includes('/') && !name.includes('\0') && !name.startsWith('..') && name !== '.',
  'must be a name without "/" that does not begin with ".."',
);

const signal = text.refine((name) => Object.hasOwn(constants.signals, name), 'is no signal of this system: write it as SIGHUP');
const words = z.array(z.string()).min(1, 'must not be empty');
const account = text.regex(/^[^:\s]+$/, 'is no name or number of an account');
const kinds = oneOf('x509', 'jwt', 'bundle');
export type Kind = z.infer<typeof kinds>;
const atomic = oneOf('link', 'rename');

const jwtSvid = z.strictObject({
  jwt_audience: text,
  jwt_extra_audiences: z.array(text).optional(),
  jwt_svid_file_name: fileName,
});

const healthChecks = z
  .strictObject({
    listener_enabled: z.boolean().default(false),
    bind_port: z.union([port, z.literal(0)]).default(8081),
    liveness_path: text.default('/live'),
    readiness_path: text.default('/ready'),
    // ours
    bind_address: text.default('127.0.0.1'),
    socket_path: path.optional(),
    metrics_path: text.default('/metrics'),
  })
  .prefault({});

/** Which of the output keys belong to which format, beside those of every output. */
const X509_KEYS = ['hint', 'spiffe_id', 'cert_file_mode', 'key_file_mode', 'omit_expired', 'atomic'] as const;
const BUNDLE_KEYS = ['add_intermediates_to_bundle', 'include_federated_domains', 'unsafe_merge_federated'] as const;
const FORMAT_KEYS = {
  pem: [...X509_KEYS, ...BUNDLE_KEYS, 'svid_file_name', 'svid_key_file_name', 'svid_bundle_file_name'],
  combined: [...X509_KEYS, ...BUNDLE_KEYS, 'combined_file_name', 'svid_bundle_file_name'],
  folder: [...X509_KEYS, 'credential_bundle_file_name', 'trust_bundle_suffix'],
  pkcs12: [...X509_KEYS, 'include_federated_domains', 'keystore_file_name', 'truststore_file_name', 'password_file'],
  jwt: ['hint', 'spiffe_id', 'audiences', 'file_name', 'file_mode'],
  jwt_bundles: ['file_name', 'file_mode'],
  jwks: ['trust_domain', 'file_name', 'file_mode'],
  spiffe_bundle: ['trust_domain', 'file_name', 'file_mode'],
} as const;
export type Format = keyof typeof FORMAT_KEYS;
const COMMON_KEYS: readonly string[] = ['format', 'directory', 'owner', 'group'];

const output = z
  .strictObject({
    format: z.enum(Object.keys(FORMAT_KEYS) as [Format, ...Format[]]),
    directory: path,
    hint: text.optional(),
    spiffe_id: spiffeId.optional(),
    owner: account.optional(),
    group: account.optional(),
    atomic: atomic.optional(),
    cert_file_mode: fileMode,
    key_file_mode: fileMode,
    file_mode: fileMode,
    omit_expired: z.boolean().optional(),
    add_intermediates_to_bundle: z.boolean().optional(),
    include_federated_domains: z.boolean().optional(),
    unsafe_merge_federated: z.boolean().optional(),
    svid_file_name: fileName.optional(),
    svid_key_file_name: fileName.optional(),
    svid_bundle_file_name: fileName.optional(),
    combined_file_name: fileName.optional(),
    credential_bundle_file_name: fileName.optional(),
    trust_bundle_suffix: fileName.optional(),
    keystore_file_name: fileName.optional(),
    truststore_file_name: fileName.optional(),
    password_file: path.optional(),
    audiences: z.array(text).min(1, 'must not be empty').optional(),
    file_name: fileName.optional(),
    trust_domain: trustDomain.optional(),
  })
  .superRefine((block, context) => {
    const allowed: readonly string[] = [...COMMON_KEYS, ...FORMAT_KEYS[block.format]];
    const say = (key: string, message: string) => context.addIssue({ code: 'custom', path: [key], message, params: { said: true } });
    for (const key of Object.keys(block)) if (!allowed.includes(key)) say(key, `is no setting of the format ${block.format}`);
    const wanted = { jwt: ['audiences', 'file_name'], pkcs12: ['password_file'] } as Partial<Record<Format, string[]>>;
    for (const key of wanted[block.format] ?? []) if ((block as Record<string, unknown>)[key] === undefined) say(key, 'must be configured');
    if (block.hint !== undefined && block.spiffe_id !== undefined) say('spiffe_id', 'only one of [hint, spiffe_id] can be used');
  });

const ACTIONS = ['command', 'signal', 'systemd_reload', 'http_post'] as const;
const hook = z
  .strictObject({
    outputs: z.array(text).optional(),
    kinds: z.array(kinds).optional(),
    events: z.array(oneOf('renewed', 'expiring')).default(['renewed']),
    command: words.optional(),
    signal: signal.optional(),
    pid_file: path.optional(),
    systemd_reload: text.regex(/^[A-Za-z0-9@._:\\-]+$/, 'is no name of a unit').optional(),
    http_post: text.regex(/^http:\/\/[^\s]+$/, 'must be an address such as http://127.0.0.1:8080/reload').optional(),
    debounce: durationOf({ maxMs: 3_600_000 }).default(200),
    timeout: durationOf({ minMs: 1, maxMs: 86_400_000 }).default(30_000),
  })
  .superRefine((block, context) => {
    const said = ACTIONS.filter((key) => block[key] !== undefined);
    if (said.length !== 1)
      context.addIssue({ code: 'custom', message: `must have exactly one of ${ACTIONS.join(', ')}`, params: { said: true } });
    if ((block.signal === undefined) !== (block.pid_file === undefined))
      context.addIssue({ code: 'custom', message: 'signal and pid_file go together', params: { said: true } });
  });

const base = z.strictObject({
  agent_address: text.optional(),
  cert_dir: path.default('.'),
  svid_file_name: fileName.optional(),
  svid_key_file_name: fileName.optional(),
  svid_bundle_file_name: fileName.optional(),
  add_intermediates_to_bundle: z.boolean().default(false),
  include_federated_domains: z.boolean().default(false),
  omit_expired: z.boolean().default(false),
  jwt_svids: z.array(jwtSvid).default([]),
  jwt_bundle_file_name: fileName.optional(),
  hint: text.optional(),
  cert_file_mode: fileMode,
  key_file_mode: fileMode,
  jwt_bundle_file_mode: fileMode,
  jwt_svid_file_mode: fileMode,
  daemon_mode: z.boolean().default(true),
  cmd: text.optional(),
  cmd_args: z.string().optional(),
  pid_file_name: path.optional(),
  renew_signal: signal.optional(),
  health_checks: healthChecks,
  // ours
  spiffe_id: spiffeId.optional(),
  owner: account.optional(),
  group: account.optional(),
  atomic: atomic.optional(),
  unsafe_merge_federated: z.boolean().default(false),
  command: words.optional(),
  renew_on: z.array(kinds).min(1, 'must not be empty').optional(),
  on_exit: oneOf('oneshot', 'restart', 'exit').default('oneshot'),
  restart_delay: durationOf({ maxMs: 3_600_000 }).default(1_000),
  stop_timeout: durationOf({ maxMs: 86_400_000 }).optional(),
  init_timeout: durationOf({ maxMs: 86_400_000 }).default(120_000),
  output: z.record(z.string(), output).default({}),
  hook: z.record(text, hook).default({}),
  log_level: logLevel.default('info'),
  log_format: oneOf('text', 'json').default('text'),
  insecure_allow_inspector: z.boolean().default(false),
});
export type HelperFile = z.infer<typeof base>;
export type OutputBlock = z.infer<typeof output>;
export type HookBlock = z.infer<typeof hook>;

/** spiffe-helper's own rules, with its words where it has any, and what two outputs may not share. */
export const helperSettings: z.ZodType<HelperFile> = base.superRefine((file, context) => {
  const say = (at: string, message: string) =>
    context.addIssue({ code: 'custom', path: at === '' ? [] : at.split('/'), message, params: { said: true } });
  const triple = [file.svid_file_name, file.svid_key_file_name, file.svid_bundle_file_name].filter((name) => name !== undefined).length;
  if (triple !== 0 && triple !== 3)
    say('', "all or none of 'svid_file_name', 'svid_key_file_name', 'svid_bundle_file_name' must be specified");
  if (triple === 0 && file.jwt_svids.length === 0 && file.jwt_bundle_file_name === undefined && Object.keys(file.output).length === 0)
    say(
      '',
      "at least one of the sets ('svid_file_name', 'svid_key_file_name', 'svid_bundle_file_name'), 'jwt_svids', or 'jwt_bundle_file_name' must be fully specified, or an 'output'",
    );
  if (file.hint !== undefined && file.spiffe_id !== undefined) say('spiffe_id', 'only one of [hint, spiffe_id] can be used');
  if (file.pid_file_name !== undefined) {
    if (!file.daemon_mode)
      say('pid_file_name', 'pid_file_name is set but daemon_mode is false. pid_file_name is only supported in daemon_mode');
    if (file.renew_signal === undefined) say('pid_file_name', 'must specify renew_signal when using pid_file_name');
  }
  if (file.command !== undefined && (file.cmd !== undefined || file.cmd_args !== undefined))
    say('command', 'only one of [command, cmd] can be used');
  if (file.on_exit !== 'oneshot' && file.command === undefined && file.cmd === undefined)
    say('on_exit', 'there is no cmd or command that could exit');
  for (const [name, { outputs = [] }] of Object.entries(file.hook))
    for (const wanted of outputs)
      if (!outputsOf(file).some((one) => one.name === wanted)) say(`hook/${name}/outputs`, `there is no output ${JSON.stringify(wanted)}`);
  // it becomes part of file names
  for (const name of Object.keys(file.output))
    if (!/^[A-Za-z0-9_-]{1,64}$/.test(name)) say('output', `${JSON.stringify(name)} is no name of an output: letters, digits, "_" and "-"`);
  const seen = new Map<string, string>();
  for (const one of outputsOf(file)) {
    for (const name of namesOf(one)) {
      const where = `${one.directory.replace(/\/+$/, '')}/${name}`;
      const other = seen.get(where);
      if (other !== undefined) say('', `the outputs ${other} and ${one.name} both write ${where}`);
      seen.set(where, one.name);
    }
  }
});

/** Names that are known beforehand; federated bundles add theirs. */
function namesOf(one: Output): string[] {
  if (one.kind !== 'x509') return [one.fileName];
  const { svid, key, bundle, combined, credentialBundle, keystore, truststore } = one.names;
  return { pem: [svid, key, bundle], combined: [combined, bundle], folder: [credentialBundle], pkcs12: [keystore, truststore] }[one.format];
}

/** Which of the workload's identities: by hint, by SPIFFE ID, or the default one. */
export interface Selection {
  readonly hint?: string | undefined;
  readonly spiffeId?: HelperFile['spiffe_id'];
}

interface Common {
  /** `x509`, `jwt-0`, `jwt-bundle` for spiffe-helper's own keys, else the block's. */
  readonly name: string;
  readonly directory: string;
  readonly owner?: string | undefined;
  readonly group?: string | undefined;
}

export interface X509Output extends Common {
  readonly kind: 'x509';
  readonly format: 'pem' | 'combined' | 'folder' | 'pkcs12';
  readonly select: Selection;
  readonly atomic: 'link' | 'rename';
  readonly certMode: FileMode;
  readonly keyMode: FileMode;
  readonly omitExpired: boolean;
  readonly intermediatesInBundle: boolean;
  /** Bundles of federated trust domains: none, a file each, or (unsafe) in one file with our own. */
  readonly federated: 'none' | 'separate' | 'merged';
  readonly names: {
    readonly svid: string;
    readonly key: string;
    readonly bundle: string;
    readonly combined: string;
    readonly credentialBundle: string;
    readonly trustBundleSuffix: string;
    readonly keystore: string;
    readonly truststore: string;
  };
  readonly passwordFile?: string | undefined;
}

export interface JwtOutput extends Common {
  readonly kind: 'jwt';
  readonly select: Selection;
  readonly audiences: readonly string[];
  readonly fileName: string;
  readonly mode: FileMode;
}

export interface BundleOutput extends Common {
  readonly kind: 'bundle';
  readonly format: 'jwt_bundles' | 'jwks' | 'spiffe_bundle';
  /** Undefined: that of the workload's default identity. */
  readonly trustDomain?: OutputBlock['trust_domain'];
  readonly fileName: string;
  readonly mode: FileMode;
}

/** A set of files that is written at once. */
export type Output = X509Output | JwtOutput | BundleOutput;

const CERT_MODE = { bits: 0o644 };
const PRIVATE_MODE = { bits: 0o600 };

/** spiffe-helper's keys as outputs, then the blocks, in the file's order. */
export function outputsOf(file: HelperFile): readonly Output[] {
  const { cert_dir: directory, owner, group, hint, spiffe_id: id } = file;
  const common = { directory, owner, group };
  const select = { hint, spiffeId: id };
  const outputs: Output[] = [];
  const { svid_file_name: svid, svid_key_file_name: key, svid_bundle_file_name: bundle } = file;
  if (svid !== undefined && key !== undefined && bundle !== undefined) {
    outputs.push(
      x509Output('x509', select, common, {
        ...file,
        format: 'pem',
        svid_file_name: svid,
        svid_key_file_name: key,
        svid_bundle_file_name: bundle,
      }),
    );
  }
  for (const [index, jwt] of file.jwt_svids.entries()) {
    const audiences = [jwt.jwt_audience, ...(jwt.jwt_extra_audiences ?? [])];
    const mode = file.jwt_svid_file_mode ?? PRIVATE_MODE;
    outputs.push({ ...common, kind: 'jwt', name: `jwt-${index}`, select, audiences, fileName: jwt.jwt_svid_file_name, mode });
  }
  if (file.jwt_bundle_file_name !== undefined) {
    const mode = file.jwt_bundle_file_mode ?? PRIVATE_MODE;
    outputs.push({ ...common, kind: 'bundle', name: 'jwt-bundle', format: 'jwt_bundles', fileName: file.jwt_bundle_file_name, mode });
  }
  for (const [name, block] of Object.entries(file.output)) {
    const own = { directory: block.directory, owner: block.owner ?? owner, group: block.group ?? group };
    const chosen = block.hint === undefined && block.spiffe_id === undefined ? select : { hint: block.hint, spiffeId: block.spiffe_id };
    switch (block.format) {
      case 'pem':
      case 'combined':
      case 'folder':
      case 'pkcs12':
        outputs.push(x509Output(name, chosen, own, { ...block, format: block.format }));
        break;
      case 'jwt':
        outputs.push({
          ...own,
          kind: 'jwt',
          name,
          select: chosen,
          audiences: block.audiences ?? [],
          fileName: block.file_name ?? '',
          mode: block.file_mode ?? PRIVATE_MODE,
        });
        break;
      case 'jwt_bundles':
      case 'jwks':
      case 'spiffe_bundle': {
        const fileName = block.file_name ?? DEFAULT_NAMES[block.format];
        const mode = block.file_mode ?? CERT_MODE;
        outputs.push({ ...own, kind: 'bundle', name, format: block.format, trustDomain: block.trust_domain, fileName, mode });
      }
    }
  }
  return outputs;
}

const DEFAULT_NAMES = { jwt_bundles: 'jwt_bundle.json', jwks: 'jwks.json', spiffe_bundle: 'bundle.json' } as const;

type X509Keys = Pick<Partial<OutputBlock>, (typeof FORMAT_KEYS)['pem' | 'combined' | 'folder' | 'pkcs12'][number]>;

function x509Output(
  name: string,
  select: Selection,
  common: Omit<Common, 'name'>,
  keys: X509Keys & Pick<X509Output, 'format'>,
): X509Output {
  const federated = keys.include_federated_domains ?? keys.format === 'folder';
  return {
    ...common,
    kind: 'x509',
    name,
    format: keys.format,
    select,
    atomic: keys.atomic ?? 'link',
    certMode: keys.cert_file_mode ?? CERT_MODE,
    keyMode: keys.key_file_mode ?? PRIVATE_MODE,
    omitExpired: keys.omit_expired ?? false,
    intermediatesInBundle: keys.add_intermediates_to_bundle ?? false,
    federated: keys.unsafe_merge_federated ? 'merged' : federated ? 'separate' : 'none',
    names: {
      svid: keys.svid_file_name ?? 'svid.pem',
      key: keys.svid_key_file_name ?? 'svid_key.pem',
      bundle: keys.svid_bundle_file_name ?? 'svid_bundle.pem',
      combined: keys.combined_file_name ?? 'svid_combined.pem',
      credentialBundle: keys.credential_bundle_file_name ?? 'credential-bundle.pem',
      trustBundleSuffix: keys.trust_bundle_suffix ?? '.trust-bundle.pem',
      keystore: keys.keystore_file_name ?? 'keystore.p12',
      truststore: keys.truststore_file_name ?? 'truststore.p12',
    },
    passwordFile: keys.password_file,
  };
}

/** What is allowed and yet should be known, at each start. */
export function warningsOf(file: HelperFile): readonly string[] {
  const warnings: string[] = [];
  if (!file.daemon_mode) {
    if (file.cmd !== undefined || file.command !== undefined) warnings.push('cmd is set but daemon_mode is false: it is ignored');
    if (file.renew_signal !== undefined) warnings.push('renew_signal is set but daemon_mode is false: it is ignored');
    if (Object.keys(file.hook).length > 0) warnings.push('hook is set but daemon_mode is false: it is ignored');
  }
  const modes = new Map<string, number>();
  for (const one of outputsOf(file)) {
    for (const mode of one.kind === 'x509' ? [one.certMode, one.keyMode] : [one.mode])
      if (mode.decimal !== undefined) modes.set(mode.decimal, mode.bits);
    if (one.kind !== 'x509') continue;
    if (one.federated === 'merged')
      warnings.push(
        `unsafe_merge_federated: in the bundle of output ${one.name}, any trust domain that we federate with can vouch for any identity, ours too`,
      );
    else if (one.name === 'x509' && one.federated === 'separate')
      warnings.push(
        `include_federated_domains: ${one.names.bundle} holds our own trust domain's authorities alone; each federated bundle has a file of its own beside it`,
      );
  }
  for (const [decimal, bits] of modes)
    warnings.push(
      `the file mode ${decimal} is decimal, as spiffe-helper reads it: 0${bits.toString(8)}; write 0${decimal} if that was meant`,
    );
  return warnings;
}
