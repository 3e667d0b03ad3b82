/** PEM (RFC 7468): blocks in and out. A block that is not well formed is refused, never skipped; text between blocks is a comment. */
import { type Reason, SpiffeError } from '../errors.ts';

export interface PemBlock {
  /** `CERTIFICATE`, `PRIVATE KEY`, … */
  readonly label: string;
  readonly der: Buffer;
}

const BEGIN = /^-----BEGIN ([A-Z0-9][A-Z0-9 ]*)-----$/;
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;
/** More than any file of certificates that we know of; a limit so that a reader of a stranger's text ends. */
const MAX_PEM_BYTES = 8 * 1024 * 1024;

/** @returns every block in order; none is an empty list. Throws REQUEST_INVALID with PEM_MALFORMED. */
export function parsePem(text: string | Uint8Array): readonly PemBlock[] {
  if (text.length > MAX_PEM_BYTES) throw fault('PEM_MALFORMED', `PEM text is longer than ${MAX_PEM_BYTES} bytes`);
  const lines = (typeof text === 'string' ? text : Buffer.from(text.buffer, text.byteOffset, text.length).toString('latin1')).split(
    /\r\n|\n|\r/,
  );
  const blocks: PemBlock[] = [];
  for (let i = 0; i < lines.length; i++) {
    const line = (lines[i] as string).trimEnd();
    if (line.startsWith('-----END ')) throw fault('PEM_MALFORMED', `line ${i + 1}: an END line without its BEGIN`);
    if (!line.startsWith('-----BEGIN ')) continue;
    const label = BEGIN.exec(line)?.[1];
    if (label === undefined) throw fault('PEM_MALFORMED', `line ${i + 1}: a malformed BEGIN line`);
    const begun = i + 1;
    let body = '';
    for (i++; ; i++) {
      const inner = lines[i]?.trimEnd();
      if (inner === undefined) throw fault('PEM_MALFORMED', `the ${label} block of line ${begun} has no END line`);
      if (inner === `-----END ${label}-----`) break;
      if (inner.includes(':'))
        throw fault('PEM_HEADERS', `the ${label} block of line ${begun} has headers: an encrypted key is not supported, decrypt it first`);
      body += inner;
    }
    if (body.length === 0 || body.length % 4 !== 0 || !BASE64.test(body)) {
      throw fault('PEM_MALFORMED', `the ${label} block of line ${begun} is not base64`);
    }
    const der = Buffer.from(body, 'base64');
    if (der.toString('base64') !== body) throw fault('PEM_MALFORMED', `the ${label} block of line ${begun} is not canonical base64`);
    blocks.push({ label, der });
  }
  return blocks;
}

/** One block with lines of 64, ending in a line feed. */
export function formatPem(label: string, der: Uint8Array): string {
  const body = Buffer.from(der.buffer, der.byteOffset, der.length).toString('base64');
  let lines = '';
  for (let at = 0; at < body.length; at += 64) lines += `${body.slice(at, at + 64)}\n`;
  return `-----BEGIN ${label}-----\n${lines}-----END ${label}-----\n`;
}

function fault(reason: Reason, why: string): SpiffeError {
  return new SpiffeError('REQUEST_INVALID', reason, why);
}
