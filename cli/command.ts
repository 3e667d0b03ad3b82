/** A command of the command line: its words, its flags, what it does. Read by commander, helped by commander. */
import { Command as Commander } from 'commander';
import { isCoded } from '../core/errors.ts';
import { asksForHelp, declareFlags, type Flags, type Parsed, parseFlags } from './flags.ts';
import type { Terminal } from './terminal.ts';

export interface Command<F extends Flags = Flags> {
  readonly summary: string;
  /** More for `--help`: what one needs to know, examples. */
  readonly details?: string;
  readonly flags: F;
  /** What it wants besides flags, by the names that the help gives it: `DIR`. All of it must be there. */
  readonly operands?: readonly string[];
  /** Its help shows flags with two dashes. Both are read. */
  readonly twoDashes?: true;
  /** Its exit code for flags that can't be read. Default 1. */
  readonly badFlags?: number;
  /** How its errors are told; `Error: …` unless given. */
  readonly sayError?: (message: string) => string;
  /** Gives the exit code; throws for a failure, told on stderr with exit code 1. */
  run(parsed: Parsed<F>, terminal: Terminal): Promise<number>;
}

export function defineCommand<F extends Flags>(command: Command<F>): Command {
  return command;
}

/** Runs a command with the words that follow it; never throws. Gives the exit code. */
export async function runCommand(name: string, command: Command, argv: readonly string[], terminal: Terminal): Promise<number> {
  const commander = createCommander(name, command.summary, command.twoDashes).usage(['[flags]', ...(command.operands ?? [])].join(' '));
  if (asksForHelp(command.flags, argv, command.operands?.length)) {
    declareFlags(command.flags, commander);
    terminal.out(commander.helpInformation() + (command.details === undefined ? '' : `\n${command.details.trim()}\n`));
    return 0;
  }
  let parsed: Parsed<Flags>;
  try {
    parsed = parseFlags(command.flags, argv, commander, command.operands, terminal.env);
  } catch (error) {
    terminal.err(`${(error as Error).message}\nType "${name} --help" for its flags.\n`);
    return command.badFlags ?? 1;
  }
  try {
    return await command.run(parsed, terminal);
  } catch (error) {
    terminal.err(`${(command.sayError ?? sayError)(messageOf(error))}\n`);
    if (!isCoded(error) && terminal.env['WARIFU_DEBUG']) terminal.err(`${String((error as Error).stack)}\n`);
    return 1;
  }
}

export function sayError(message: string): string {
  return `Error: ${message}`;
}

/** What to tell of an error. One of the system's is told as Go does: `open /etc/x: permission denied`. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, syscall, path } = error as NodeJS.ErrnoException;
  const fault = code !== undefined && Object.hasOwn(SYSTEM_FAULTS, code) ? SYSTEM_FAULTS[code] : undefined;
  return fault === undefined || syscall === undefined || path === undefined ? error.message : `${syscall} ${path}: ${fault}`;
}

const SYSTEM_FAULTS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  EISDIR: 'is a directory',
  ENOTDIR: 'not a directory',
  EEXIST: 'file exists',
  ENOSPC: 'no space left on device',
  EROFS: 'read-only file system',
};

/** Help for a group of commands. */
export function groupHelp(name: string, summary: string, children: readonly (readonly [word: string, summary: string])[]): string {
  const commander = createCommander(name, summary).usage('<command> [flags]');
  for (const [word, about] of children) commander.command(word).description(about);
  return `${commander.helpInformation()}\nType "${name} <command> --help" for more.\n`;
}

/** A commander that throws instead of ending the process, and shows flags with one dash, as SPIRE's users type them, unless told otherwise. */
function createCommander(name: string, summary: string, twoDashes = false): Commander {
  return new Commander(name)
    .description(summary)
    .usage('[flags]')
    .helpOption(false)
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeOut: () => {}, writeErr: () => {} })
    .configureHelp({
      styleTitle: (title) => title.replace('Options:', 'Flags:'),
      optionTerm: (option) => (twoDashes ? option.flags : option.flags.replace(/^--/, '-')),
      optionDescription: (option) => {
        const { description, defaultValueDescription: preset } = option;
        return preset === undefined || preset === '' || preset === 'off' ? description : `${description} (default ${preset})`;
      },
      subcommandTerm: (command) => command.name(),
    });
}
