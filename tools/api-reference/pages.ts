/** The pages of docs/api, one for each subpath export, and docs/errors.md: paths from the root of the repository, and what is to be there. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { errorPage } from './errors.ts';
import { type Entry, type Member, type Named, readEntries, ROOT } from './names.ts';
import { cell, codeCell, paragraphs, prose, type Where } from './prose.ts';

const ERRORS = 'docs/errors.md';

export function pages(entries: readonly Entry[] = readEntries()): ReadonlyMap<string, string> {
  const source = readFileSync(join(ROOT, 'spiffe/errors.ts'), 'utf8');
  const homes = homesOf(entries);
  const made = entries.map((entry) => [`docs/api/${pageOf(entry)}`, page(entry, homes, entries)] as const);
  return new Map([['docs/api/README.md', overview(entries, homes)], ...made, [ERRORS, errorPage(source)]]);
}

/** Each name is told of once, on the page of an export that has it: the one whose folder holds its file, else the first. */
function homesOf(entries: readonly Entry[]): ReadonlyMap<Named, Entry> {
  const homes = new Map<Named, Entry>();
  for (const entry of entries) {
    for (const one of entry.names) {
      const known = homes.get(one);
      if (!known || (dirname(known.file) === 'spiffe' && dirname(one.file).startsWith(dirname(entry.file)))) homes.set(one, entry);
    }
  }
  return homes;
}

function pageOf({ specifier }: Entry): string {
  return `${specifier
    .replace('@warifu/', '')
    .replace(/^spiffe\//, '')
    .replaceAll('/', '-')}.md`;
}

type Homes = ReadonlyMap<Named, Entry>;

/** The names of a page in its order, with their anchors: GitHub's, where `TlsPeer` and `tlsPeer` are one word, and the second is numbered. */
function anchorsOf(names: readonly Named[]): ReadonlyMap<Named, string> {
  const seen = new Map<string, number>();
  return new Map(
    names.map((one) => {
      const word = one.name.toLowerCase();
      const before = seen.get(word) ?? 0;
      seen.set(word, before + 1);
      return [one, before === 0 ? word : `${word}-${before}`];
    }),
  );
}

function ownNames(entry: Entry, homes: Homes): readonly Named[] {
  return entry.names.filter((one) => homes.get(one) === entry).sort(byName);
}

/** Without regard to case; a type before the function of its name. */
const byName = (a: Named, b: Named) => {
  const [x, y] = [a.name.toLowerCase(), b.name.toLowerCase()];
  return x === y ? (a.name < b.name ? -1 : 1) : x < y ? -1 : 1;
};

function overview(entries: readonly Entry[], homes: Homes): string {
  const rows = entries.map((entry) => {
    const links = [...anchorsOf(ownNames(entry, homes))]
      .map(([{ name }, anchor]) => `[\`${name}\`](${pageOf(entry)}#${anchor})`)
      .join(', ');
    return `| [\`${entry.specifier}\`](${pageOf(entry)}) | ${about(entry)} | ${links} |`;
  });
  return `# The API of @warifu/spiffe

${NOTICE}

| import | for | names |
|---|---|---|
${rows.join('\n')}

- Whatever refuses throws a \`SpiffeError\`: [errors.md](../errors.md) has every \`code\` and \`reason\`.
- Durations and instants are numbers whose name says the unit: \`…Ms\` milliseconds (of an instant, since 1970), \`…Seconds\` seconds.
- What may be left out is marked \`?\`, and its default is told; without a word of it, leaving it out means there is none.
- Values (IDs, SVIDs, bundles, certificates) are immutable. What is opened has \`close()\` or \`[Symbol.asyncDispose]\`: who opens it closes it.
`;
}

const NOTICE = '<!-- made of the docstrings in spiffe/ by `npm run api` -->';

function about({ about: text }: Entry): string {
  const bare = text
    .replace(/ ?For outsiders.*$/, '')
    .replace(/^`@warifu\/spiffe[\w/]*`: /, '')
    .replace(/ `@warifu\/spiffe\/[\w/]*`\.$/, '');
  return bare.replace(/^[a-z]+\b/, (word) => `${word.charAt(0).toUpperCase()}${word.slice(1)}`);
}

function page(entry: Entry, homes: Homes, entries: readonly Entry[]): string {
  const own = ownNames(entry, homes);
  const hidden = hiddenBehind(own, homes);
  const where = whereFrom(entry, homes, hidden);
  const elsewhere = entry.names.filter((one) => homes.get(one) !== entry).sort(byName);
  const shared = elsewhere.map(({ name }) => `[\`${name}\`](${where(name)})`).join(', ');
  const others = entries.filter((one) => one !== entry).map((one) => `[\`${one.specifier}\`](${pageOf(one)})`);
  return `${[
    `# ${entry.specifier}`,
    NOTICE,
    prose(about(entry), where, '../'),
    ...(own.length > 0
      ? [['| | |', '|---|---|', ...own.map((one) => `| [\`${one.name}\`](${where(one.name)}) | ${summary(one, where)} |`)].join('\n')]
      : []),
    ...(elsewhere.length > 0 ? [`The same as elsewhere: ${shared}.`] : []),
    ...own.flatMap((one) => section(one, where, homes)),
    ...(hidden.length > 0
      ? ['## Types that these speak of', 'They are not exported by name.', ...hidden.flatMap((one) => section(one, where, homes, '###'))]
      : []),
    `Other pages: ${others.join(', ')}; [errors](../errors.md).`,
  ].join('\n\n')}\n`;
}

/** Types of ours that nobody can import, and that signatures on this page speak of. */
function hiddenBehind(own: readonly Named[], homes: Homes): readonly Named[] {
  const found = new Set<Named>();
  const look = (one: Named) => {
    for (const mention of one.mentions) {
      if (homes.has(mention) || found.has(mention)) continue;
      found.add(mention);
      look(mention);
    }
  };
  own.forEach(look);
  return [...found].sort(byName);
}

function whereFrom(entry: Entry, homes: Homes, hidden: readonly Named[]): Where {
  const to = new Map<string, string>();
  const anchors = new Map(
    [...new Set(homes.values())].flatMap((home) => [...anchorsOf([...ownNames(home, homes), ...(home === entry ? hidden : [])])]),
  );
  for (const one of hidden) to.set(one.name, `#${anchors.get(one)}`);
  for (const [one, home] of homes) {
    const { name, file, code } = one;
    to.set(name, `${home === entry ? '' : pageOf(home)}#${anchors.get(one)}`);
    if (file !== 'spiffe/errors.ts') continue;
    for (const [, word = ''] of code.matchAll(/^ {2}\| '(\w+)'/gm)) to.set(word, `../errors.md#${word.toLowerCase()}`);
  }
  return (name) => to.get(name);
}

function summary({ doc }: Named, where: Where): string {
  const [first = ''] = doc.text;
  return prose(/^.*?[.:;](?= |$)/.exec(first)?.[0]?.replace(/[:;]$/, '.') ?? first, where, '../').replaceAll('|', '\\|');
}

function section(one: Named, where: Where, homes: Homes, level = '##'): readonly string[] {
  const { name, kind, heritage, file, doc, code, members } = one;
  const kindred = heritage.map((clause) => clause.replaceAll(/\b\w+\b/g, (word) => link(word, where))).join(', ');
  const words = [kind, ...(kindred ? [kindred] : []), `[${file}](../../${file})`].join(' · ');
  // the errors have a page of their own
  const told =
    file === 'spiffe/errors.ts' && kind === 'type'
      ? ['All of them, with what to do: [errors.md](../errors.md).']
      : code
        ? [`\`\`\`ts\n${code}\n\`\`\``]
        : [];
  const mentioned = one.mentions.filter((mention) => homes.has(mention) || where(mention.name) !== undefined);
  return [
    `${level} ${name}`,
    words,
    ...told,
    ...paragraphs(doc, where, '../'),
    ...(members.length > 0 ? [table(members, where)] : []),
    ...(mentioned.length > 0 ? [`See ${mentioned.map((mention) => `[\`${mention.name}\`](${where(mention.name)})`).join(', ')}.`] : []),
  ];
}

function link(word: string, where: Where): string {
  const to = where(word);
  return to === undefined ? word : `[${word}](${to})`;
}

/** What needs no docstring. */
const KNOWN: Readonly<Record<string, string>> = { '[Symbol.asyncDispose]': 'For `await using`.', toJSON: 'For `JSON.stringify`.' };

function table(members: readonly Member[], where: Where): string {
  const rows = members.map(({ name, signature, doc }) => `| ${codeCell(signature)} | ${cell(doc, where, '../') || KNOWN[name] || ''} |`);
  return ['| | |', '|---|---|', ...rows].join('\n');
}
