/** docs/errors.md, of the docstrings of `Code` and `Reason` in spiffe/errors.ts. */
import { prose } from './prose.ts';

interface Row {
  readonly name: string;
  readonly seen: string;
  readonly next: string;
  /** Section and our numbers; '' where no specification says it. */
  readonly rules: string;
}

/** By the beginning of a reason. The order is that of spiffe/errors.ts. */
const FAMILIES: readonly (readonly [prefix: string, title: string, told: string])[] = [
  ['ID_', 'SPIFFE IDs', 'As `ID_INVALID`, or as the code of what held the text: a certificate, a bundle, a request.'],
  [
    'DER_',
    'DER',
    'As `SVID_INVALID` in an SVID, `BUNDLE_INVALID` in a bundle, `REQUEST_INVALID` elsewhere. What BER allows and DER does not is refused.',
  ],
  ['PEM_', 'PEM', 'As `SVID_INVALID` in an SVID, `BUNDLE_INVALID` in a bundle, `REQUEST_INVALID` elsewhere.'],
  ['JSON_', 'JSON', 'As `SVID_INVALID` in a token, `BUNDLE_INVALID` in a bundle, `REQUEST_INVALID` elsewhere.'],
  ['KEY_', 'Keys', 'In certificates, bundles and private keys.'],
  ['CSR_', 'Requests for certificates', 'The server says so, as `REQUEST_INVALID`.'],
  [
    'X509_',
    'Certificates and X.509-SVIDs',
    'The form of a certificate, then the profile of an SVID, then its path to the bundle of its own trust domain.',
  ],
  ['BUNDLE_', 'Bundles', 'As `BUNDLE_INVALID`.'],
  ['JWT_', 'JWT-SVIDs', 'In the order in which `validateJwtSvid` looks: form, header, claims, dates, audience, key, signature.'],
  ['ENDPOINT_', 'The address of the Workload API', 'As `REQUEST_INVALID`.'],
  ['WAPI_', 'Answers of the Workload API', 'As `SVID_INVALID` or `BUNDLE_INVALID`.'],
  ['FED_', 'Bundle endpoints', 'Its code is in [federation-client.md](federation-client.md#what-is-refused-and-as-what).'],
  ['HTTP_', 'The `Authorization` header', 'As `UNAUTHENTICATED`: the caller gets 401 and no reason, `log` both.'],
  ['XFCC_', 'x-forwarded-client-cert', 'As `UNAUTHENTICATED`; looked at only where a proxy is trusted.'],
];

/** @param source of spiffe/errors.ts */
export function errorPage(source: string): string {
  const codes = rowsOf(source, 'Code');
  const reasons = rowsOf(source, 'Reason');
  const families = FAMILIES.map(([prefix, ...words]) => [reasons.filter(({ name }) => name.startsWith(prefix)), ...words] as const);
  const told = families.flatMap(([rows]) => rows);
  const strays = reasons.filter((one) => !told.includes(one));
  if (strays.length > 0) throw new Error(`no family of docs/errors.md has ${strays.map(({ name }) => name).join(', ')}`);
  return `# Errors

<!-- made of spiffe/errors.ts by \`npm run api\` -->

Everything here refuses with a \`SpiffeError\`. Its \`code\` is coarse and stable: what kind of failure it is, and whether trying again can help. Its \`reason\` is fine: which rule was broken; undefined where the code says all. Its
\`message\` is for people: the thing, what was wrong, what was seen, often what to do; it may change. Its \`cause\` is whatever lies below. Code and reason are for programs:

\`\`\`ts
if (error instanceof SpiffeError && error.reason === 'JWT_AUD_UNEXPECTED') …
\`\`\`

What goes over the network is never the cause, and to callers of the middleware nothing but 401, 403 or 503. The numbers, such as X509-39, are the lines of [spec.md](spec.md).

## Codes

From a Workload API, and from the server, the code is the gRPC status. Two more are for the programs alone: \`SETTINGS_INVALID\` and \`STORE_FAILED\`.

| \`code\` | what was seen | what to do |
|---|---|---|
${codes.map((row) => `| ${anchored(row.name)} | ${text(row.seen)} | ${text(row.next)} |`).join('\n')}

${families.map(([rows, title, words]) => family(rows, title, words)).join('\n\n')}
`;
}

function family(rows: readonly Row[], title: string, words: string): string {
  const ruled = rows.some(({ rules }) => rules !== '');
  const lines = rows.map(
    ({ name, seen, next, rules }) => `| ${anchored(name)} | ${text(seen)} | ${text(next)} |${ruled ? ` ${text(rules)} |` : ''}`,
  );
  return `## ${title}

${words}

| \`reason\` | what was seen | what to do |${ruled ? ' rule |' : ''}
|---|---|---|${ruled ? '---|' : ''}
${lines.join('\n')}`;
}

function text(words: string): string {
  return prose(words, () => undefined, '').replaceAll('|', '\\|');
}

function anchored(name: string): string {
  return `<a id="${name.toLowerCase()}"></a>\`${name}\``;
}

/** Each member of the union, whose docstring is "seen → next · rules". */
function rowsOf(source: string, union: 'Code' | 'Reason'): readonly Row[] {
  const [, members = ''] = new RegExp(`^export type ${union} =\\n([\\s\\S]*?);\\n`, 'm').exec(source) ?? [];
  return [...members.matchAll(/(?:^ {2}\/\*\* (.*) \*\/\n)?^ {2}\| '(\w+)'/gm)].map(([, doc = '', name = '']) => {
    const [, seen, next, rules = ''] = /^(.+?)(?: → (.+?))?(?: · (.+))?$/.exec(doc) ?? [];
    if (seen === undefined || next === undefined) throw new Error(`spiffe/errors.ts: ${name} does not say what was seen → what to do`);
    return { name, seen, next, rules };
  });
}
