/** What the flags of a proxy must and must not say together: ghostunnel's rules and ours, one a row. All that are broken are told at once. */
import { QUIET } from '../proxy/process-settings.ts';
import type { ProxyValues } from './proxy-flags.ts';

export interface Typed {
  readonly mode: 'server' | 'client';
  readonly values: ProxyValues;
  /** Which flags stood on the command line. */
  readonly given: ReadonlySet<string>;
}

/** Where our certificate and the authorities come from. */
export type SourceKind = 'keystore' | 'pem' | 'workload-api' | 'spiffe-dir';

/** Those that were named: by flags, and only where no flag names one, by variables. Those of a client that shows no certificate are named by flags. */
export function sourcesOf({ mode, values, given }: Typed): readonly SourceKind[] {
  const named: readonly (readonly [kind: SourceKind, is: boolean, flags: readonly string[]])[] = [
    ['keystore', values.keystore !== '', ['keystore']],
    ['pem', values.cert !== '' || values.key !== '', ['cert', 'key']],
    [
      'workload-api',
      values['use-workload-api'] || (values['use-workload-api-addr'] !== '' && !given.has('use-workload-api')),
      ['use-workload-api', 'use-workload-api-addr'],
    ],
    ['spiffe-dir', values['spiffe-dir'] !== '', ['spiffe-dir']],
  ];
  const all = named.filter(([, is]) => is);
  const typed = all.filter(([, , flags]) => flags.some((flag) => given.has(flag)));
  const shownNothing = mode === 'client' && values['disable-authentication'];
  return (typed.length > 0 || shownNothing ? typed : all).map(([kind]) => kind);
}

/** Peers are judged by SPIFFE's rules. */
export function isSpiffe(typed: Typed): boolean {
  return sourcesOf(typed).some((kind) => kind === 'workload-api' || kind === 'spiffe-dir');
}

const isFiles = (kind: SourceKind) => kind === 'keystore' || kind === 'pem';

const ALLOW = ['allow-cn', 'allow-ou', 'allow-dns', 'allow-uri'] as const;
const VERIFY = ['verify-cn', 'verify-ou', 'verify-dns', 'verify-uri', 'verify-trust-domain'] as const;

const names = (flags: readonly string[]) => flags.map((flag) => `--${flag}`).join(', ');

function used(values: ProxyValues, flags: readonly (typeof ALLOW | typeof VERIFY)[number][]): boolean {
  return flags.some((flag) => (values[flag]?.length ?? 0) > 0);
}

function allows(values: ProxyValues): readonly string[] {
  return (['allow-all', ...ALLOW, 'allow-spki-pin'] as const).filter((flag) => {
    const value = values[flag];
    return typeof value === 'boolean' ? value : (value?.length ?? 0) > 0;
  });
}

const MAX_WORKERS = 64;

interface Rule {
  readonly of: 'both' | 'server' | 'client';
  readonly broken: (typed: Typed) => boolean;
  readonly says: string;
}

const set = (value: string | boolean | undefined) => value !== undefined && value !== '' && value !== false;
const refuse = (of: Rule['of'], flags: readonly (keyof ProxyValues)[], instead: string): Rule[] =>
  flags.map((flag) => ({
    of,
    broken: ({ values }) => set(values[flag] as string | boolean | undefined),
    says: `--${flag} is not offered: ${instead}`,
  }));

const REGO =
  'Rego policies are not read here: say the same with --allow-uri or --verify-uri and their patterns, or with --intentions FILE (allow, deny and shadow by SPIFFE ID)';
const ACME =
  'take certificates from the Workload API (--use-workload-api), or let an ACME client such as certbot write --cert and --key and send SIGHUP after each renewal';
const PKCS11 = 'keys in PKCS#11 tokens are not used yet: give --cert and --key, --keystore, or --use-workload-api';

export const RULES: readonly Rule[] = [
  { of: 'both', broken: ({ values }) => values.listen === '', says: 'required flag --listen not provided' },
  { of: 'both', broken: ({ values }) => values.target === '', says: 'required flag --target not provided' },

  // who we are
  {
    of: 'both',
    broken: (typed) => sourcesOf(typed).length === 0 && !(typed.mode === 'client' && typed.values['disable-authentication']),
    says: 'one of --use-workload-api, --spiffe-dir, --keystore, or --cert with --key is required: who is this proxy?',
  },
  {
    of: 'both',
    broken: (typed) => sourcesOf(typed).length > 1,
    says: '--use-workload-api, --spiffe-dir, --keystore, and --cert with --key are mutually exclusive: one identity, from one place',
  },
  {
    of: 'both',
    broken: (typed) => sourcesOf(typed).includes('pem') && (typed.values.cert === '') !== (typed.values.key === ''),
    says: '--cert and --key must be set together',
  },
  {
    of: 'client',
    broken: (typed) => typed.values['disable-authentication'] && sourcesOf(typed).some(isFiles),
    says: '--disable-authentication shows no certificate: it is mutually exclusive with --keystore and --cert',
  },
  {
    of: 'both',
    broken: ({ values }) => values.hint !== '' && values['spiffe-id'] !== '',
    says: '--hint and --spiffe-id are mutually exclusive: each chooses the SVID',
  },
  {
    of: 'both',
    broken: (typed) => (typed.values.hint !== '' || typed.values['spiffe-id'] !== '') && !sourcesOf(typed).includes('workload-api'),
    says: '--hint and --spiffe-id choose among the SVIDs of the Workload API: they need --use-workload-api',
  },
  {
    of: 'both',
    broken: ({ values }) => /\.(?:jceks|jks)$/i.test(values.keystore),
    says: '--keystore: JCEKS and JKS are not read: make PKCS#12 of it (keytool -importkeystore -deststoretype PKCS12)',
  },
  ...refuse('both', ['pkcs11-module', 'pkcs11-token-label', 'pkcs11-pin'], PKCS11),
  ...refuse('server', ['auto-acme-cert', 'auto-acme-email', 'auto-acme-agree-to-tos', 'auto-acme-ca', 'auto-acme-testca'], ACME),

  // who may
  {
    of: 'server',
    broken: ({ values }) => allows(values).length === 0 && values.intentions === '' && !values['disable-authentication'],
    says: `at least one access control flag is required: --allow-all, ${names(ALLOW)}, --allow-spki-pin, --intentions or --disable-authentication`,
  },
  {
    of: 'server',
    broken: ({ values }) => values['allow-all'] === true && allows(values).length > 1,
    says: '--allow-all is mutually exclusive with the other access control flags',
  },
  {
    of: 'server',
    broken: ({ values }) => values['disable-authentication'] && (allows(values).length > 0 || values.intentions !== ''),
    says: '--disable-authentication is mutually exclusive with access control flags: no client shows who it is',
  },
  {
    of: 'server',
    broken: ({ values }) => (values['allow-spki-pin']?.length ?? 0) > 0 && allows(values).length > 1,
    says: '--allow-spki-pin is mutually exclusive with the other access control flags: the key alone says who it is',
  },
  ...refuse('server', ['allow-policy', 'allow-query'], REGO),
  {
    of: 'client',
    broken: ({ values }) => (values['verify-spki-pin']?.length ?? 0) > 0 && used(values, VERIFY),
    says: '--verify-spki-pin is mutually exclusive with the other --verify flags: the key alone says who it is',
  },
  {
    of: 'client',
    broken: (typed) => {
      const { values } = typed;
      return isSpiffe(typed) && !expectsPeer(values) && values['unsafe-any-peer'] !== true;
    },
    says: 'with SPIFFE the name of a host says nothing of who answers there, so the server must be named: --verify-uri spiffe://example.org/db (or --verify-trust-domain, --verify-dns, --intentions; --unsafe-any-peer to insist on whoever has an SVID)',
  },
  {
    of: 'client',
    broken: ({ values }) => values['unsafe-any-peer'] === true && (used(values, VERIFY) || (values['verify-spki-pin']?.length ?? 0) > 0),
    says: '--unsafe-any-peer is mutually exclusive with the --verify flags: anybody may be the server, or somebody',
  },
  {
    of: 'client',
    broken: (typed) => (typed.values['unsafe-any-peer'] === true || used(typed.values, ['verify-trust-domain'])) && !isSpiffe(typed),
    says: '--unsafe-any-peer and --verify-trust-domain are for SPIFFE: they need --use-workload-api or --spiffe-dir',
  },
  ...refuse('client', ['verify-policy', 'verify-query'], REGO),
  {
    of: 'both',
    broken: (typed) => typed.values.intentions !== '' && !isSpiffe(typed),
    says: '--intentions are for SPIFFE IDs: they need --use-workload-api or --spiffe-dir',
  },
  {
    of: 'client',
    broken: ({ values }) => values.intentions !== '' && values['disable-authentication'],
    says: '--intentions say who may call whom, and with --disable-authentication nobody calls: name the server with --verify-uri',
  },
  {
    of: 'client',
    broken: ({ values }) => (values['allow-gid']?.length ?? 0) > 0 && !/^(?:unix|systemd):/.test(values.listen),
    says: '--allow-gid needs --listen unix:PATH: of a TCP connection the kernel tells the user alone (--allow-uid)',
  },

  // the way through
  {
    of: 'server',
    broken: ({ values }) => values['proxy-protocol'] === true && set(values['proxy-protocol-mode']),
    says: '--proxy-protocol and --proxy-protocol-mode are mutually exclusive',
  },
  {
    of: 'server',
    broken: ({ values }) => !['', 'conn', 'tls', 'tls-full'].includes(values['proxy-protocol-mode'] ?? ''),
    says: '--proxy-protocol-mode must be conn, tls or tls-full',
  },
  {
    of: 'server',
    broken: ({ values }) => values.permissive === true && values['disable-authentication'],
    says: '--permissive is mutually exclusive with --disable-authentication: plain text would be as good as TLS',
  },
  {
    of: 'both',
    broken: ({ values }) => values['connect-timeout'] === 0,
    says: '--connect-timeout must not be 0s: a caller that says nothing would stay for ever',
  },
  {
    of: 'both',
    broken: ({ values }) => !['end', 'keep'].includes(values.rotation),
    says: '--rotation must be end (connections end with the identity) or keep',
  },
  ...(['max-concurrent-conns', 'max-conns-per-id', 'max-handshakes-per-second'] as const).map(
    (flag): Rule => ({ of: 'both', broken: ({ values }) => values[flag] < 0, says: `--${flag} must not be negative; 0 is no limit` }),
  ),
  {
    of: 'both',
    broken: ({ values }) => values.workers < 1 || values.workers > MAX_WORKERS,
    says: `--workers must be 1 to ${MAX_WORKERS}`,
  },

  // around it
  {
    of: 'both',
    broken: ({ values }) => (values['enable-pprof'] || values['enable-shutdown']) && values.status === '',
    says: '--enable-pprof and --enable-shutdown need --status',
  },
  {
    of: 'both',
    broken: ({ mode, values }) => mode === 'client' && values['disable-authentication'] && values.status.startsWith('https://'),
    says: '--status https:// needs a certificate: with --disable-authentication there is none',
  },
  {
    of: 'both',
    broken: ({ values }) => values['metrics-interval'] === 0,
    says: '--metrics-interval must not be 0s',
  },
  {
    of: 'both',
    broken: ({ values }) => !/^[A-Za-z_][A-Za-z0-9_.-]*$/.test(values['metrics-prefix']),
    says: '--metrics-prefix must be letters, digits, ".", "_" and "-", and begin with a letter',
  },
  {
    of: 'both',
    broken: ({ values }) => values.quiet.some((one) => !(QUIET as readonly string[]).includes(one)),
    says: `--quiet must be one of ${QUIET.join(', ')}`,
  },
  {
    of: 'both',
    broken: ({ values }) => !['all', 'errors', 'off'].includes(values['access-log']),
    says: '--access-log must be all, errors or off',
  },
  { of: 'both', broken: ({ values }) => !['text', 'json'].includes(values['log-format']), says: '--log-format must be text or json' },
];

function expectsPeer(values: ProxyValues): boolean {
  return used(values, VERIFY) || (values['verify-spki-pin']?.length ?? 0) > 0 || values.intentions !== '';
}

/** What is wrong, a line each. */
export function brokenRules(typed: Typed): readonly string[] {
  return RULES.filter(({ of, broken }) => (of === 'both' || of === typed.mode) && broken(typed)).map(({ says }) => says);
}
