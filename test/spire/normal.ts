/** Output of a command without what must differ from run to run: ids, times, keys, serial numbers. What is inside of tokens and certificates stays, in words. */
import { X509Certificate } from 'node:crypto';

/** @param names what has a name of its own in this run, such as its folder → how it is called in all of them */
export function normal(text: string, names: readonly (readonly [found: string, called: string])[]): string {
  let made = text;
  for (const [found, called] of names) made = made.replaceAll(found, called);
  return (
    made
      .replace(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g, (pem) => `<certificate ${certificateText(pem)}>`)
      .replace(/-----BEGIN ([A-Z ]+)-----[^-]+-----END \1-----/g, '<$1>')
      .replace(/eyJ[\w-]+\.[\w-]+\.[\w-]+/g, tokenText)
      // DER in base64, alone or one after the other; also a JWKS
      .replace(
        /"([A-Za-z0-9+/]{64,}={0,2}|e[wy][A-Za-z0-9+/]{8,}={0,2})"/g,
        (_, base64: string) => `"<${bytesText(Buffer.from(base64, 'base64'))}>"`,
      )
      .replace(/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, '<uuid>')
      .replace(/"(kid|key_id)": ?"[^"]+"/g, '"$1":"<key id>"')
      .replace(/"(x|y)": ?"[\w-]{40,}"/g, '"$1":"<coordinate>"')
      .replace(/\b[0-9a-f]{40}\b/g, '<sha1>')
      .replace(/\b1970-01-01 00:00:00 \+0000 UTC/g, '<no time>')
      .replace(/\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC\b/g, '<time>')
      .replace(/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\b/g, '<time>')
      // seconds since 1970, as text and as a number
      .replace(/"?\b1[6-9]\d{8}\b"?/g, '<seconds>')
      .replace(/\b\d{25,}\b/g, '<serial number>')
      .replace(/("agent_version":|Agent version *: )"?[^",\n]*"?/g, '$1<version>')
      .replace(/\bafter [\d.]+(ns|µs|ms|s)\b/g, 'after <duration>')
  );
}

function certificateText(pem: string): string {
  const { subject, subjectAltName, ca, validFromDate, validToDate } = new X509Certificate(pem);
  const seconds = Math.round((validToDate.getTime() - validFromDate.getTime()) / 1000);
  // what is cut short by its issuer depends on when that one was made
  const lifetime = seconds > 4000 ? 'long' : `${seconds} s`;
  return [subject.replaceAll('\n', ', '), subjectAltName ?? 'no names', ca ? 'CA' : 'no CA', lifetime].join('; ');
}

function tokenText(token: string): string {
  const [header, claims] = token.split('.').map((part) => Buffer.from(part, 'base64url').toString('utf8'));
  try {
    const { kid, ...rest } = JSON.parse(header ?? '') as { kid?: string };
    const { iat, exp, ...others } = JSON.parse(claims ?? '') as { iat?: number; exp?: number };
    const lifetime = iat === undefined || exp === undefined ? 'no' : exp - iat > 4000 ? 'long' : `${exp - iat} s`;
    return `<token ${sorted(rest)} ${kid ? 'with' : 'without'} kid, ${sorted(others)}, lifetime ${lifetime}>`;
  } catch {
    return `<no token: ${token}>`;
  }
}

function sorted(object: object): string {
  return JSON.stringify(Object.fromEntries(Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1))));
}

function bytesText(bytes: Buffer): string {
  const text = bytes.toString('utf8');
  if (text.startsWith('{')) return `JSON ${normal(text, [])}`;
  const certificates: string[] = [];
  for (let rest = bytes; rest.length > 0; ) {
    try {
      const one = new X509Certificate(rest);
      certificates.push(certificateText(one.toString()));
      rest = rest.subarray(one.raw.length);
    } catch {
      return certificates.length > 0 ? `${certificates.join(' | ')} and what is no certificate` : 'bytes';
    }
  }
  return certificates.join(' | ');
}
