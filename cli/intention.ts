/** `intention …`: who may call whom, by a file of intentions: one call, all intentions, those about one end, the file itself. */
import { fail } from '../core/errors.ts';
import type { Intention, Verdict } from '../core/intention.ts';
import { type IntentionSettings, parseName, readIntentionFile } from '../core/intention-settings.ts';
import { defineCommand, messageOf, sayError } from './command.ts';
import { bool, output, text } from './flags.ts';
import { counted, harmless, printStruct } from './print.ts';
import type { Terminal } from './terminal.ts';

const file = {
  ...text('File of intentions: HCL (.conf, .hcl), YAML or JSON by its ending', 'intentions.hcl', 'path'),
  env: 'WARIFU_INTENTIONS',
} as const;
const formats = { output, o: { ...output, help: 'Short for -output' } } as const;
/** Two that differ have been refused. */
const formatOf = (values: { readonly output: 'pretty' | 'json'; readonly o: 'pretty' | 'json' }) =>
  values.o === 'json' ? 'json' : values.output;

/** Scripts must be able to tell "denied" from "not known". */
const CANNOT_SAY = 2;

export const check = defineCommand({
  summary: 'Says whether one may call another, and which intention decides',
  details: `SOURCE and DESTINATION are SPIFFE IDs, or short names such as web where the file names a trust_domain. Exit code 0: allowed; 1: denied; 2: it can't be said,
since the file or the command is at fault.

  warifu intention check web db
  warifu intention check -explain spiffe://example.org/web spiffe://example.org/db`,
  flags: { file, explain: bool('Say of every intention whether it matches, and why it decides or does not'), ...formats },
  operands: ['SOURCE', 'DESTINATION'],
  badFlags: CANNOT_SAY,
  async run({ values, operands: [from = '', to = ''] }, terminal) {
    try {
      const { intentions, trustDomain } = await read(values);
      const [source, destination] = [parseName(from, trustDomain), parseName(to, trustDomain)];
      const verdict = intentions.check(source, destination);
      const explained = values.explain ? intentions.explain(source, destination) : [];
      if (formatOf(values) === 'json') {
        printStruct(terminal, {
          allowed: verdict.allowed,
          source,
          destination,
          intention: orNull(verdict.rule),
          shadow: orNull(verdict.shadow),
          why: verdict.why,
          default: intentions.default,
          version: intentions.version,
          ...(values.explain && { explanations: explained.map(({ rule, matches, why }) => ({ intention: rule.id, matches, why })) }),
        });
      } else {
        terminal.out(`${answer(verdict)}: ${verdict.why}\n`);
        for (const { rule, why } of explained) terminal.out(`  ${rule.id} ${why}\n`);
      }
      return verdict.allowed ? 0 : 1;
    } catch (error) {
      terminal.err(`${sayError(messageOf(error))}\n`);
      return CANNOT_SAY;
    }
  },
});

export const list = defineCommand({
  summary: 'Lists all intentions, the most exact first',
  flags: { file, ...formats },
  async run({ values }, terminal) {
    const { intentions } = await read(values);
    return print(terminal, formatOf(values), intentions.rules, intentions);
  },
});

export const match = defineCommand({
  summary: 'Lists the intentions about one destination or one source',
  details: `The first that matches a call decides; those in trial decide nothing. What none of them matches gets the default.

  warifu intention match -destination db      # who may call db, and who may not
  warifu intention match -source web          # whom web may call`,
  flags: {
    file,
    destination: text('Who is called: a SPIFFE ID or a short name', '', 'id'),
    source: text('Who calls: a SPIFFE ID or a short name', '', 'id'),
    ...formats,
  },
  async run({ values }, terminal) {
    const { source, destination } = values;
    if ((source === '') === (destination === '')) throw fail('REQUEST_INVALID', 'one of -destination and -source must be given');
    const { intentions, trustDomain } = await read(values);
    const rules =
      destination === ''
        ? intentions.fromSource(parseName(source, trustDomain))
        : intentions.toDestination(parseName(destination, trustDomain));
    return print(terminal, formatOf(values), rules, intentions);
  },
});

export const validate = defineCommand({
  summary: 'Validates a file of intentions',
  details: 'Everything that is wrong is told at once, with file and line. Exit code 0 when nothing is.',
  flags: { file, ...formats },
  async run({ values }, terminal) {
    const { intentions } = await read(values);
    const { rules, version } = intentions;
    const trials = rules.filter((rule) => rule.shadow).length;
    if (formatOf(values) === 'json') {
      return printStruct(terminal, { valid: true, intentions: rules.length, in_trial: trials, default: intentions.default, version });
    }
    const trial = trials === 0 ? '' : `, ${trials} of them in trial`;
    terminal.out(
      `The file is valid: ${counted(rules.length, 'intention', 'intentions')}${trial}, default ${intentions.default}, version ${version}.\n`,
    );
    return 0;
  },
});

async function read(values: { readonly file: string }): Promise<IntentionSettings> {
  return await readIntentionFile(values.file, 'the -file flag or WARIFU_INTENTIONS');
}

function answer({ allowed }: Verdict): string {
  return allowed ? 'allowed' : 'denied';
}

interface Told {
  readonly id: string;
  readonly source: string;
  readonly destination: string;
  readonly action: string;
  readonly shadow: boolean;
  readonly description: string;
}

/** Every key always there, in this order. */
function told({ id, source, destination, action, shadow, description = '' }: Intention): Told {
  return { id, source, destination, action, shadow, description };
}

function orNull(rule: Intention | undefined): Told | null {
  return rule ? told(rule) : null;
}

function print(
  terminal: Terminal,
  format: 'pretty' | 'json',
  rules: readonly Intention[],
  { default: preset, version }: IntentionSettings['intentions'],
): number {
  if (format === 'json') return printStruct(terminal, { intentions: rules.map(told), default: preset, version });
  const cells = [
    ['ACTION', 'SOURCE', 'DESTINATION', 'INTENTION'],
    ...rules.map(({ id, source, destination, action, shadow, description }) => [
      shadow ? `${action} (trial)` : action,
      source,
      destination,
      description === undefined ? id : `${id}: ${harmless(description)}`,
    ]),
    [preset, 'whatever else', '', '(default)'],
  ];
  const widths = cells[0]?.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0))) ?? [];
  for (const row of cells)
    terminal.out(
      `${row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd()}\n`,
    );
  return 0;
}
