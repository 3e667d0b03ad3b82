/** How SPIRE's command line words things: entries, agents, times, statuses. Scripts read these: they are held by tests to the letter. */
import type { Terminal } from './terminal.ts';

export interface Id {
  readonly trustDomain: string;
  readonly path: string;
}

/** What an entry's lines need; generated messages fit. */
export interface PrintableEntry {
  readonly id: string;
  readonly spiffeId?: Id | undefined;
  readonly parentId?: Id | undefined;
  readonly selectors: readonly { readonly type: string; readonly value: string }[];
  readonly x509SvidTtl: number;
  readonly jwtSvidTtl: number;
  readonly federatesWith: readonly string[];
  readonly admin: boolean;
  readonly downstream: boolean;
  readonly expiresAt: Long;
  readonly dnsNames: readonly string[];
  readonly revisionNumber: Long;
  readonly storeSvid: boolean;
  readonly hint: string;
  readonly additionalAttributes?: { readonly disableX509SvidPrefetch: boolean; readonly jwtSvidIncludeJti: boolean } | undefined;
}

/** A 64-bit number, in whichever form the wire's reader gives it. */
export type Long = number | bigint | string;

export function idText(id: Id | undefined): string {
  return id ? `spiffe://${id.trustDomain}${id.path}` : '';
}

export function entryText(entry: PrintableEntry): string {
  const lines: [name: string, value: string][] = [
    ['Entry ID', entry.id === '' ? '(none)' : entry.id],
    ['SPIFFE ID', idText(entry.spiffeId)],
    ['Parent ID', idText(entry.parentId)],
    ['Revision', String(entry.revisionNumber)],
  ];
  if (entry.downstream) lines.push(['Downstream', 'true']);
  lines.push(['X509-SVID TTL', entry.x509SvidTtl === 0 ? 'default' : String(entry.x509SvidTtl)]);
  lines.push(['JWT-SVID TTL', entry.jwtSvidTtl === 0 ? 'default' : String(entry.jwtSvidTtl)]);
  if (Number(entry.expiresAt) !== 0) lines.push(['Expiration time', utcTime(Number(entry.expiresAt) * 1000)]);
  for (const { type, value } of entry.selectors) lines.push(['Selector', `${type}:${value}`]);
  for (const name of entry.federatesWith) lines.push(['FederatesWith', name]);
  for (const name of entry.dnsNames) lines.push(['DNS name', name]);
  if (entry.admin) lines.push(['Admin', 'true']);
  if (entry.storeSvid) lines.push(['StoreSvid', 'true']);
  if (entry.hint !== '') lines.push(['Hint', entry.hint]);
  if (entry.additionalAttributes?.disableX509SvidPrefetch) lines.push(['DisableX509SvidPrefetch', 'true']);
  if (entry.additionalAttributes?.jwtSvidIncludeJti) lines.push(['JwtSvidIncludeJti', 'true']);
  return `${aligned(lines, 24)}\n`;
}

/** `Name      : value` lines. */
export function aligned(lines: readonly (readonly [name: string, value: string])[], width: number): string {
  return lines.map(([name, value]) => `${name.padEnd(width)}: ${value}\n`).join('');
}

/** Text that others chose, with all that a terminal takes as commands or as another order of reading written out: `\u{1b}`. */
export function harmless(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (one) => `\\u{${(one.codePointAt(0) ?? 0).toString(16)}}`);
}

/** `1 entry`, `2 entries`. */
export function counted(count: number, singular: string, plural: string): string {
  return `${count} ${count === 1 ? singular : plural}`;
}

/** An instant as Go prints it, in UTC: `2026-01-02 03:04:05 +0000 UTC`. */
export function utcTime(ms: number): string {
  const iso = new Date(ms).toISOString();
  return `${iso.slice(0, 10)} ${iso.slice(11, 19)} +0000 UTC`;
}

/** An instant as Go prints it, in the machine's own time zone: `2026-01-02 04:04:05 +0100 CET`. */
export function localTime(ms: number): string {
  const date = new Date(ms);
  const offset = -date.getTimezoneOffset();
  if (offset === 0) return utcTime(ms);
  const two = (value: number) => String(value).padStart(2, '0');
  const zone = `${offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(offset) / 60))}${two(Math.abs(offset) % 60)}`;
  const name =
    new Intl.DateTimeFormat('en-US', { timeZoneName: 'short' }).formatToParts(date).find(({ type }) => type === 'timeZoneName')?.value ??
    '';
  const shifted = new Date(ms + offset * 60_000).toISOString();
  // a zone without a name of its own is called by its offset, as Go does
  return `${shifted.slice(0, 10)} ${shifted.slice(11, 19)} ${zone} ${/^(GMT|UTC)/.test(name) ? zone : name}`;
}

/** A text in quotes, as Go's %q. */
export function quoted(text: string): string {
  return JSON.stringify(text);
}

/** gRPC's codes by Go's names. */
const CODES = [
  'OK',
  'Canceled',
  'Unknown',
  'InvalidArgument',
  'DeadlineExceeded',
  'NotFound',
  'AlreadyExists',
  'PermissionDenied',
  'ResourceExhausted',
  'FailedPrecondition',
  'Aborted',
  'OutOfRange',
  'Unimplemented',
  'Internal',
  'Unavailable',
  'DataLoss',
  'Unauthenticated',
] as const;

export function codeName(code: number): string {
  return CODES[code] ?? `Code(${code})`;
}

/** A failed call as Go's gRPC words it. */
export function rpcErrorText(code: number, message: string): string {
  return `rpc error: code = ${codeName(code)} desc = ${message}`;
}

/** DER certificates, or one key, as PEM. */
export function pem(label: string, ...der: readonly Uint8Array[]): string {
  return der
    .map(
      (bytes) =>
        `-----BEGIN ${label}-----\n${(
          Buffer.from(bytes)
            .toString('base64')
            .match(/.{1,64}/g) ?? []
        ).join('\n')}\n-----END ${label}-----\n`,
    )
    .join('');
}

/** JSON of what is no message: keys in the order given, safe inside HTML as Go writes it. Gives exit code 0. */
export function printStruct(terminal: Pick<Terminal, 'out'>, value: object): number {
  terminal.out(`${goEscape(JSON.stringify(value))}\n`);
  return 0;
}

/** Go's JSON text is safe inside HTML. */
export function goEscape(json: string): string {
  return json.replace(/[<>&\u2028\u2029]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
