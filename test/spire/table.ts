/** What the comparison found, as a table: one row for each command that was typed. */
import { writeFileSync } from 'node:fs';
import { INTENDED, type Reason, type Told } from './intended.ts';
import type { Step } from './steps.ts';

export interface Found {
  readonly step: Step;
  /** SPIRE's own first. */
  readonly told: readonly Told[];
  /** Whether the answers are equal once the reasons have their due. */
  readonly settled: boolean;
  readonly reasons: readonly Reason[];
}

export class Table {
  readonly #found: Found[] = [];

  add(found: Found): void {
    this.#found.push(found);
  }

  /** On stdout: a row for each command, and one for each answer that is another; every row goes to the file. */
  write(path: string | undefined): void {
    const rows = this.#found.map((found) => ({ found, command: commandOf(found.step), ...judged(found) }));
    const all = ['| command | case | same output? | same exit code? | the difference |', '|---|---|---|---|---|'];
    for (const { found, command, output, exit, words } of rows)
      all.push(`| \`${command}\` | ${found.step.name} | ${output} | ${exit} | ${words} |`);
    if (path !== undefined) writeFileSync(path, `${all.join('\n')}\n\n${rows.map(({ found }) => said(found)).join('')}`);

    const lines = ['| command | cases | same output | same exit code | otherwise, on purpose | otherwise |', '|---|---|---|---|---|---|'];
    for (const command of new Set(rows.map((row) => row.command))) {
      const its = rows.filter((row) => row.command === command);
      const count = (which: (row: (typeof its)[number]) => boolean) => its.filter(which).length;
      lines.push(
        `| \`${command}\` | ${its.length} | ${count(({ output }) => output === 'yes')} | ${count(({ exit }) => exit === 'yes')} | ${count(({ output, found }) => output === 'no' && found.settled)} | ${count(({ found }) => !found.settled)} |`,
      );
    }
    const others = all.filter((_, i) => i < 2 || rows[i - 2]?.output === 'no' || rows[i - 2]?.exit === 'no');
    process.stdout.write(`\n${lines.join('\n')}\n\n${others.join('\n')}\n`);
  }
}

/** The words before the first flag. */
function commandOf({ args }: Step): string {
  const flag = args.findIndex((word) => word.startsWith('-'));
  return args.slice(0, flag < 0 ? args.length : flag).join(' ');
}

/** Each answer where there is more than one, and whose it is. */
function said({ step, told }: Found): string {
  const answers = new Map<string, string[]>();
  for (const [i, { code, stdout, stderr }] of told.entries()) {
    const text = `exit code ${code}\n--- stdout\n${stdout}\n--- stderr\n${stderr}\n`;
    answers.set(text, [...(answers.get(text) ?? []), PLACES[i] ?? '']);
  }
  if (answers.size === 1) return '';
  return `## ${step.args.join(' ')}\n\n${[...answers].map(([text, whose]) => `${whose.join(', ')}:\n\n\`\`\`\n${text}\`\`\`\n\n`).join('')}`;
}

const PLACES = ["SPIRE's on SPIRE's", "ours on SPIRE's", "SPIRE's on ours", 'ours on ours'] as const;

function judged({ told, settled, reasons }: Found): { output: string; exit: string; words: string } {
  const same = (of: (one: Told) => unknown) => (new Set(told.map(of)).size === 1 ? 'yes' : 'no');
  const output = same(({ stdout, stderr }) => JSON.stringify([stdout, stderr]));
  const words = [...reasons.map((reason) => INTENDED[reason].why), ...(settled ? [] : ['not intended'])].join('; ');
  return { output, exit: same(({ code }) => code), words };
}
