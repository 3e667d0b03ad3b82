/** The flags of `proxy server` and `proxy client`: ghostunnel's, with its names, defaults and variables, and ours. What they must not say together is in proxy-rules.ts. */
import { bool, duration, type Flag, type Flags, integer, list, text, toggle, type Values } from './flags.ts';

const env = <F extends Flag>(name: string, flag: F): F & { readonly env: string } => ({ ...flag, env: name });

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

/** Their rules hold already; a proxy that would need them does not start. */
const NOT_YET = 'Not read yet:';
const NOT_OFFERED = 'Not offered, and refused:';

/** Of both commands. */
export const COMMON = {
  keystore: env('KEYSTORE_PATH', text(`${NOT_YET} certificate and key in one file, PEM or PKCS#12`, '', 'path')),
  cert: env('CERT_PATH', text(`${NOT_YET} our certificate and those that lead to its authority, PEM`, '', 'path')),
  key: env('KEY_PATH', text(`${NOT_YET} its private key, PEM`, '', 'path')),
  storepass: env('KEYSTORE_PASS', text('Password of the keystore. The variable is not seen by other users, the flag is', '', 'password')),
  cacert: env('CACERT_PATH', text('Authorities to judge peers by, PEM; without it those that Node comes with', '', 'path')),
  'use-workload-api': toggle("Our SVID and everybody's authorities come from the SPIFFE Workload API"),
  'use-workload-api-addr': env('SPIFFE_ENDPOINT_SOCKET', text('Its address, which implies --use-workload-api', '', 'address')),
  'use-workload-api-timeout': duration('How long to wait for the first SVID; 0s: for ever', 10 * MINUTE),
  hint: text('Of several SVIDs the one with this hint', '', 'hint'),
  'spiffe-id': text('Of several SVIDs the one with this SPIFFE ID', '', 'id'),
  'spiffe-dir': text('SVID, key and bundle as a helper keeps them in a folder: svid.pem, svid_key.pem, svid_bundle.pem', '', 'directory'),
  intentions: text('File of intentions: who may call whom, besides the access flags. Read again when it changes', '', 'path'),
  rotation: text('What becomes of connections whose SVIDs end or lose trust: end or keep', 'end', 'end|keep'),
  'timed-reload': duration('Read files again this often; 0s: only at SIGHUP or SIGUSR1', 0),
  'shutdown-timeout': duration('After SIGTERM: end although connections are open', 5 * MINUTE),
  'connect-timeout': duration('For connecting, and for each handshake', 10 * SECOND),
  'close-timeout': duration('How long one side of a connection may go on when the other has ended; 0s: not at all', MINUTE),
  'idle-timeout': duration('End connections without a byte for so long; 0s: never', 0),
  'max-conn-lifetime': duration('End connections that are older; 0s: never', 0),
  'max-concurrent-conns': integer('Open connections at once; beyond, callers wait. 0: no limit'),
  'max-conns-per-id': integer('Open connections of one peer; beyond, it is refused. 0: no limit'),
  'max-handshakes-per-second': integer('Handshakes begun in a second; beyond, callers are refused. 0: no limit'),
  'tcp-keepalive': duration('Silence after which TCP asks whether the other end is there; 0s: never', 15 * SECOND),
  workers: integer('Processes that accept side by side', 1),
  status: text('Status port: [http(s)://]HOST:PORT, unix:PATH or systemd:NAME', '', 'address'),
  'enable-pprof': toggle('/debug/pprof on the status port'),
  'enable-shutdown': toggle('POST /_shutdown on the status port ends the proxy as SIGTERM does'),
  'metrics-graphite': text('Push metrics to Graphite over TCP', '', 'host:port'),
  'metrics-url': text('Push metrics as JSON, by POST', '', 'url'),
  'metrics-prefix': text('First word of the names of metrics', 'ghostunnel', 'prefix'),
  'metrics-interval': duration('How often metrics are pushed', 30 * SECOND),
  quiet: list('Do not log all, conns, conn-errs or handshake-errs', 'what'),
  'access-log': text('Lines about connections: all, errors or off', 'all', 'which'),
  'log-format': text('text or json', 'text', 'format'),
  syslog: toggle("Log lines begin with syslog's priority (<6>), for systemd's journal or `| logger --prio-prefix`"),
  'skip-resolve': toggle("Do not look the target's name up at the start"),
  'disable-landlock': toggle('Taken, and nothing to switch off: Landlock is not used'),
  'pkcs11-module': env('PKCS11_MODULE', text(`${NOT_OFFERED} a key in a PKCS#11 token`, '', 'path')),
  'pkcs11-token-label': env('PKCS11_TOKEN_LABEL', text(`${NOT_OFFERED} as above`, '', 'label')),
  'pkcs11-pin': env('PKCS11_PIN', text(`${NOT_OFFERED} as above`, '', 'pin')),
} satisfies Flags;

export const SERVER = {
  listen: text('TLS comes in here: HOST:PORT, unix:PATH or systemd:NAME', '', 'address'),
  target: text('Plain goes out here: HOST:PORT or unix:PATH', '', 'address'),
  'unsafe-target': toggle('Let plain text leave this machine'),
  'target-status': text("URL that tells the target's health; without it, that it can be connected", '', 'url'),
  'proxy-protocol': toggle('The same as --proxy-protocol-mode=conn'),
  'proxy-protocol-mode': text('PROXY protocol v2 to the target: conn, tls or tls-full', '', 'mode'),
  'proxy-protocol-from': list(
    'Whoever connects from this address or network must begin with a PROXY header, v1 or v2, which is believed',
    'network',
  ),
  permissive: toggle('Take plain text, too, and count who still uses it: for the time of a migration'),
  'disable-authentication': toggle('Ask no client for a certificate'),
  'allow-all': toggle('Every client with a certificate that we trust may'),
  'allow-cn': list('Clients with this common name may', 'name'),
  'allow-ou': list('Clients with this organizational unit may', 'name'),
  'allow-dns': list('Clients with this DNS name may', 'name'),
  'allow-uri': list('Clients with this URI, such as a SPIFFE ID, may; * is one segment, ** at the end any number', 'pattern'),
  'allow-spki-pin': list('Clients with this public key may: sha256:BASE64', 'pin'),
  'allow-policy': text(`${NOT_OFFERED} a Rego policy; use --intentions`, '', 'path'),
  'allow-query': text(`${NOT_OFFERED} as above`, '', 'query'),
  'auto-acme-cert': text(`${NOT_OFFERED} certificates by ACME`, '', 'name'),
  'auto-acme-email': text(`${NOT_OFFERED} as above`, '', 'email'),
  'auto-acme-agree-to-tos': bool(`${NOT_OFFERED} as above`),
  'auto-acme-ca': text(`${NOT_OFFERED} as above`, '', 'url'),
  'auto-acme-testca': text(`${NOT_OFFERED} as above`, '', 'url'),
} satisfies Flags;

export const CLIENT = {
  listen: text('Plain comes in here: HOST:PORT, unix:PATH or systemd:NAME', '', 'address'),
  target: text('TLS goes out here: HOST:PORT', '', 'address'),
  'unsafe-listen': toggle('Let plain text come from other machines'),
  'override-server-name': text(
    "Name of the server instead of the target's: for SNI, and in its certificate where that is no SVID",
    '',
    'name',
  ),
  proxy: text('Proxy on the way to the target: http://[USER:PASSWORD@]HOST:PORT (CONNECT) or socks5://…', '', 'url'),
  'disable-authentication': toggle('Show no certificate'),
  'allow-uid': list('Only processes of this user may connect', 'uid'),
  'allow-gid': list('Only processes of this group may connect; over UNIX sockets', 'gid'),
  'verify-cn': list('The server must have this common name', 'name'),
  'verify-ou': list('The server must have this organizational unit', 'name'),
  'verify-dns': list('The server must have this DNS name', 'name'),
  'verify-uri': list('The server must have this URI, such as a SPIFFE ID; * is one segment, ** at the end any number', 'pattern'),
  'verify-trust-domain': list('The server must be of this trust domain', 'name'),
  'verify-spki-pin': list('The server must have this public key: sha256:BASE64', 'pin'),
  'unsafe-any-peer': toggle('Whoever has an SVID that we trust may be the server'),
  'verify-policy': text(`${NOT_OFFERED} a Rego policy; use --intentions`, '', 'path'),
  'verify-query': text(`${NOT_OFFERED} as above`, '', 'query'),
} satisfies Flags;

export const SERVER_FLAGS = { ...SERVER, ...COMMON };
export const CLIENT_FLAGS = { ...CLIENT, ...COMMON };

export type ServerValues = Values<typeof SERVER_FLAGS>;
export type ClientValues = Values<typeof CLIENT_FLAGS>;
/** Of either command: what only one of them has may be missing. */
export type ProxyValues = Values<typeof COMMON> &
  Pick<ServerValues & ClientValues, 'listen' | 'target' | 'disable-authentication'> &
  Partial<Values<typeof SERVER>> &
  Partial<Values<typeof CLIENT>>;
