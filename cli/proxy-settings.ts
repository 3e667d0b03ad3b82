/** From the flags of a proxy to its settings: every fault at once, or settings that nobody checks again. */
import { readFileSync } from 'node:fs';
import { fail } from '../core/errors.ts';
import type { Access } from '../proxy/access.ts';
import {
  isLocal,
  parseListenAddress,
  parseNetwork,
  parseStatusAddress,
  parseTargetAddress,
  parseTcpTarget,
  parseViaProxy,
} from '../proxy/address.ts';
import type { ProcessSettings, Quiet } from '../proxy/process-settings.ts';
import type { IdentitySettings, ListenerSettings, PlainPeers } from '../proxy/settings.ts';
import { parseUriPattern } from '../proxy/uri-pattern.ts';
import { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { parseEndpoint } from '../spiffe/workload-api/endpoint.ts';
import type { ProxyValues } from './proxy-flags.ts';
import { brokenRules, isSpiffe, sourcesOf, type Typed } from './proxy-rules.ts';

/** Throws SETTINGS_INVALID, with a line for each fault. */
export function readProxyFlags(typed: Typed): ProcessSettings {
  const faults = [...brokenRules(typed)];
  const { mode, values } = typed;
  /** What the flag says, or undefined and a fault more. */
  const take = <T>(flag: string, written: string | undefined, parse: (text: string) => T): T | undefined => {
    if (written === undefined || written === '') return undefined;
    try {
      return parse(written);
    } catch (error) {
      faults.push(`--${flag}: ${(error as Error).message}`);
      return undefined;
    }
  };
  const takeAll = <T>(flag: string, written: readonly string[] | undefined, parse: (text: string) => T): readonly T[] =>
    (written ?? []).flatMap((one) => {
      // an empty word would be a name that certificates without one have
      if (one === '') faults.push(`--${flag} must not be empty`);
      const parsed = take(flag, one, parse);
      return parsed === undefined ? [] : [parsed];
    });

  const listen = take('listen', values.listen, parseListenAddress);
  if (listen && mode === 'client' && values['unsafe-listen'] !== true && !isLocal(listen))
    faults.push(
      '--listen must be on this machine (localhost, 127.0.0.1, [::1], unix: or systemd:): whoever reaches it speaks as this workload; --unsafe-listen to insist',
    );
  const target = take('target', values.target, mode === 'server' ? parseTargetAddress : parseTcpTarget);
  if (target && mode === 'server' && values['unsafe-target'] !== true && !isLocal(target))
    faults.push(
      '--target must be on this machine (localhost, 127.0.0.1, [::1] or unix:): plain text goes there; --unsafe-target to insist',
    );
  const pin = (text: string) => parsePin(text);
  const asIs = (text: string) => text;
  const access: Access =
    mode === 'server'
      ? {
          all: values['allow-all'] === true,
          commonNames: takeAll('allow-cn', values['allow-cn'], asIs),
          organizationalUnits: takeAll('allow-ou', values['allow-ou'], asIs),
          dnsNames: takeAll('allow-dns', values['allow-dns'], asIs),
          uris: takeAll('allow-uri', values['allow-uri'], parseUriPattern),
          spkiPins: takeAll('allow-spki-pin', values['allow-spki-pin'], pin),
        }
      : {
          // with a certificate of a company's PKI the name of the host says who it is, and is asked for in the handshake
          all: values['unsafe-any-peer'] === true || (!isSpiffe(typed) && !namesServer(values)),
          commonNames: takeAll('verify-cn', values['verify-cn'], asIs),
          organizationalUnits: takeAll('verify-ou', values['verify-ou'], asIs),
          dnsNames: takeAll('verify-dns', values['verify-dns'], asIs),
          uris: [
            ...takeAll('verify-uri', values['verify-uri'], parseUriPattern),
            ...takeAll('verify-trust-domain', values['verify-trust-domain'], (name) =>
              parseUriPattern(`spiffe://${TrustDomain.parse(name).name}/**`),
            ),
          ],
          spkiPins: takeAll('verify-spki-pin', values['verify-spki-pin'], pin),
        };
  const plainPeers: PlainPeers = {
    uids: takeAll('allow-uid', values['allow-uid'], parseAccount),
    gids: takeAll('allow-gid', values['allow-gid'], parseAccount),
  };
  const proxyFrom = takeAll('proxy-protocol-from', values['proxy-protocol-from'], parseNetwork);
  const via = take('proxy', values.proxy, parseViaProxy);
  const status = take('status', values.status, parseStatusAddress);
  const targetStatus = take('target-status', values['target-status'], parseHttpUrl);
  const metricsUrl = take('metrics-url', values['metrics-url'], parseHttpUrl);
  const graphite = take('metrics-graphite', values['metrics-graphite'], parseTcpTarget);
  const workloadApi = take('use-workload-api-addr', values['use-workload-api-addr'], parseWorkloadApi);
  take('spiffe-id', values['spiffe-id'], SpiffeId.parse);
  take('keystore', sourcesOf(typed).includes('keystore') ? values.keystore : undefined, refuseJceks);
  if (faults.length > 0 || !listen || !target) throw fail('SETTINGS_INVALID', faults.join('\n'));

  const common = { name: mode, listen, identity: IDENTITY, access, authenticate: !values['disable-authentication'] };
  const proxyProtocol = values['proxy-protocol'] === true ? 'conn' : values['proxy-protocol-mode'] || undefined;
  const listener: ListenerSettings =
    mode === 'server'
      ? {
          ...common,
          mode,
          target,
          proxyProtocol: proxyProtocol as 'conn' | undefined,
          proxyFrom: proxyFrom.length > 0 ? proxyFrom : undefined,
          permissive: values.permissive === true,
        }
      : {
          ...common,
          mode,
          target: target as Extract<typeof target, { kind: 'tcp' }>,
          serverName: values['override-server-name'] || undefined,
          via,
          plainPeers,
        };
  return {
    proxy: {
      listeners: [listener],
      identities: new Map([[IDENTITY, identityOf(typed, workloadApi)]]),
      limits: {
        maxConnections: values['max-concurrent-conns'],
        maxConnectionsPerId: values['max-conns-per-id'],
        maxHandshakesPerSecond: values['max-handshakes-per-second'],
      },
      timeouts: {
        connectMs: values['connect-timeout'],
        closeMs: values['close-timeout'],
        lifetimeMs: values['max-conn-lifetime'],
        idleMs: values['idle-timeout'],
        shutdownMs: values['shutdown-timeout'],
        keepAliveMs: values['tcp-keepalive'],
      },
      keepConnections: values.rotation === 'keep',
      identityTimeoutMs: values['use-workload-api-timeout'],
      reloadMs: values['timed-reload'],
    },
    intentions: values.intentions || undefined,
    status: status && { ...status, pprof: values['enable-pprof'], shutdown: values['enable-shutdown'], targetStatus },
    metrics: {
      prefix: values['metrics-prefix'],
      intervalMs: values['metrics-interval'],
      graphite: graphite && { host: graphite.host, port: graphite.port },
      url: metricsUrl,
    },
    log: {
      format: values['log-format'] as 'text',
      priorities: values.syslog,
      quiet: new Set(values.quiet as readonly Quiet[]),
      connections: values['access-log'] as 'all',
    },
    resolve: !values['skip-resolve'],
    workers: values.workers,
    warnings: warningsOf(typed, listener),
  };
}

const IDENTITY = 'default';

function identityOf(typed: Typed, address: string | undefined): IdentitySettings {
  const { values } = typed;
  const [source] = sourcesOf(typed);
  const authorities = values.cacert || undefined;
  // a client that shows no certificate
  if (source === undefined) return { kind: 'pki', authorities };
  switch (source) {
    case 'workload-api':
      return {
        kind: 'workload-api',
        address,
        hint: values.hint || undefined,
        spiffeId: values['spiffe-id'] || undefined,
      };
    case 'spiffe-dir':
      return { kind: 'spiffe-files', directory: values['spiffe-dir'] };
    case 'keystore':
      return { kind: 'pki', keystore: values.keystore, storepass: values.storepass || undefined, authorities };
    case 'pem':
      return { kind: 'pki', certificate: values.cert, key: values.key, authorities };
  }
}

function namesServer(values: ProxyValues): boolean {
  return (['verify-cn', 'verify-ou', 'verify-dns', 'verify-uri', 'verify-trust-domain', 'verify-spki-pin'] as const).some(
    (flag) => (values[flag]?.length ?? 0) > 0,
  );
}

/** What an operator should know and is free to do. */
function warningsOf(typed: Typed, listener: ListenerSettings): readonly string[] {
  const { values } = typed;
  return [
    ...openDoor(listener),
    ...(values['unsafe-any-peer'] ? ['--unsafe-any-peer: whoever has an SVID that we trust may be the server'] : []),
    ...(values.rotation === 'keep' ? ['--rotation=keep: connections outlive the identities and the trust that opened them'] : []),
    ...(values.permissive ? ['--permissive: plain text is taken, from anybody'] : []),
    ...(values.cacert !== '' && isSpiffe(typed) ? ['--cacert is not looked at: the source of SVIDs says whom to trust'] : []),
    ...(values['disable-landlock'] ? ['--disable-landlock: there is nothing to switch off, Landlock is not used'] : []),
    ...(values.syslog
      ? ['--syslog: lines go to standard output, each with its priority, as systemd-journald and logger --prio-prefix read them']
      : []),
  ];
}

/** A plain side that asks nobody who he is. */
export function openDoor(listener: ListenerSettings): readonly string[] {
  if (listener.mode !== 'client' || listener.listen.kind === 'unix') return [];
  const { uids, gids } = listener.plainPeers;
  if (uids.length > 0 || gids.length > 0) return [];
  const who =
    listener.listen.kind === 'systemd'
      ? 'whoever can connect to the socket'
      : isLocal(listener.listen)
        ? 'every process of every user of this machine'
        : 'everybody who can reach it';
  return [
    `the plain side is open: ${who} speaks as this workload; --allow-uid names the users who may, --listen unix:PATH leaves it to the file's mode`,
  ];
}

function parsePin(text: string): string {
  const [, algorithm = '', digest = ''] = /^([^:]*):(.*)$/.exec(text) ?? [];
  if (algorithm.toLowerCase() !== 'sha256') throw fail('SETTINGS_INVALID', `${JSON.stringify(text)}: expected sha256:BASE64`);
  const bytes = Buffer.from(digest, 'base64');
  if (bytes.length !== 32 || bytes.toString('base64') !== digest)
    throw fail('SETTINGS_INVALID', `${JSON.stringify(text)}: a SHA-256 in base64 has 44 characters, the last of which is "="`);
  return digest;
}

/** An address of SPIFFE's, or a path. */
function parseWorkloadApi(text: string): string {
  const address = text.startsWith('/') ? `unix://${text.split('/').map(encodeURIComponent).join('/')}` : text;
  parseEndpoint(address);
  return address;
}

/** The largest uid that is one: 2^32-1 means none. */
const MAX_ACCOUNT = 0xffff_fffe;

function parseAccount(text: string): number {
  const value = /^(?:0|[1-9][0-9]{0,9})$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= MAX_ACCOUNT)) throw fail('SETTINGS_INVALID', `${JSON.stringify(text)}: expected a number of a user or a group`);
  return value;
}

function parseHttpUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'http:' && url?.protocol !== 'https:')
    throw fail('SETTINGS_INVALID', `${JSON.stringify(text)}: expected http:// or https://`);
  return text;
}

/** JCEKS and JKS by their first bytes, whatever the file is called. What else is wrong with it is told when it is read. */
function refuseJceks(path: string): void {
  let magic: string;
  try {
    magic = readFileSync(path).toString('hex', 0, 4);
  } catch {
    return;
  }
  if (magic === 'cececece' || magic === 'feedfeed')
    throw fail('SETTINGS_INVALID', 'JCEKS and JKS are not read: make PKCS#12 of it (keytool -importkeystore -deststoretype PKCS12)');
}
