/** Docstrings as Markdown: codes, requirements, sections and names become links; errors and defaults stand out. */
import type { Doc } from './names.ts';

/** Where a name is told of, seen from the page at hand; undefined: nowhere. */
export type Where = (name: string) => string | undefined;

const STANDARDS = 'https://github.com/spiffe/spiffe/blob/main/standards';
const SPECIFICATIONS: readonly (readonly [words: RegExp, url: string])[] = [
  [/SPIFFE-ID §[\d.]+\d/g, `${STANDARDS}/SPIFFE-ID.md`],
  [/X509-SVID (?:§[\d.]*\d|Appendix [A-Z])/g, `${STANDARDS}/X509-SVID.md`],
  [/JWT-SVID §[\d.]*\d/g, `${STANDARDS}/JWT-SVID.md`],
  [/SPIFFE Trust Domain and Bundle §[\d.]*\d/g, `${STANDARDS}/SPIFFE_Trust_Domain_and_Bundle.md`],
  [/SPIFFE Federation §[\d.]*\d/g, `${STANDARDS}/SPIFFE_Federation.md`],
  [/SPIFFE Workload Endpoint §[\d.]*\d/g, `${STANDARDS}/SPIFFE_Workload_Endpoint.md`],
  [/SPIFFE Workload API §[\d.]*\d/g, `${STANDARDS}/SPIFFE_Workload_API.md`],
];

/** The headings of docs/spec.md. */
const FAMILIES: Readonly<Record<string, string>> = {
  ID: 'spiffe-ids',
  X509: 'x509-svids',
  JWT: 'jwt-svids',
  TDB: 'trust-domains-and-bundles',
  FED: 'bundle-endpoints',
  WE: 'the-workload-endpoint',
  WAPI: 'the-workload-api',
};

/** @param up from the page to docs/ */
export function prose(text: string, where: Where, up: '' | '../'): string {
  return text
    .split(/(`[^`]*`)/)
    .map((part, i) => (i % 2 === 1 ? codeLink(part, where) : words(part, where, up)))
    .join('');
}

function codeLink(code: string, where: Where): string {
  const [, name = '', member = ''] = /^`(\w+)(\.\w+|\(…?\))?`$/.exec(code) ?? [];
  const to = (member.startsWith('.') ? where(`${name}${member}`) : undefined) ?? where(name);
  return to === undefined ? code : `[${code}](${to})`;
}

function words(text: string, where: Where, up: string): string {
  let linked = text;
  for (const [found, url] of SPECIFICATIONS) linked = linked.replace(found, (section) => `[${section}](${url})`);
  return linked
    .replace(
      /\bRFC (\d+)(?: §([\d.]*\d))?/g,
      (whole, rfc: string, section?: string) =>
        `[${whole}](https://www.rfc-editor.org/rfc/rfc${rfc}${section === undefined ? '' : `#section-${section}`})`,
    )
    .replace(
      /(?<![[\w-])(ID|X509|JWT|TDB|FED|WE|WAPI)-\d+(?![\w-])/g,
      (rule, family: string) => `[${rule}](${up}spec.md#${FAMILIES[family]})`,
    )
    .replace(/\b[A-Z][A-Z0-9_]{4,}\b/g, (word) => {
      const to = where(word);
      return to === undefined ? word : `[${word}](${to})`;
    })
    .replace(/(^|[.;:)] )(Throws|Rejects|Default)\b/g, '$1**$2**')
    .replaceAll('<', '&lt;');
}

/** Paragraphs, then parameters as a list. */
export function paragraphs({ text, params, fails }: Doc, where: Where, up: '../'): readonly string[] {
  const list = params.map((one) => `- ${param(one, where, up)}`).join('\n');
  return [...text.map((one) => prose(one, where, up)), list, prose(fails, where, up)].filter((part) => part !== '');
}

/** The same for a cell of a table. */
export function cell({ text, params, fails }: Doc, where: Where, up: '../'): string {
  const parts = [...text.map((one) => prose(one, where, up)), ...params.map((one) => param(one, where, up)), prose(fails, where, up)];
  return parts
    .filter((part) => part !== '')
    .join(' ')
    .replaceAll('|', '\\|');
}

function param([name, told]: Doc['params'][number], where: Where, up: '../'): string {
  return `\`${name}\`: ${prose(told, where, up)}`;
}

/** Code in a cell of a table. */
export function codeCell(code: string): string {
  return `\`${code.replaceAll('|', '\\|')}\``;
}
