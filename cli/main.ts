/** The command line: finds the command that was typed, loads its file and nothing else, runs it, gives the exit code. */
import { systemClock } from '../spiffe/clock.ts';
import { childrenOf, findLeaf, GROUPS } from './commands.ts';
import type { Terminal } from './terminal.ts';
import { version } from './version.ts';

/** Called by cli/warifu.mjs. */
export async function start(): Promise<void> {
  const stop = new AbortController();
  const terminal: Terminal = {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    input: readInput,
    env: process.env,
    clock: systemClock,
    signal: stop.signal,
  };
  const argv = process.argv.slice(2);
  // daemons have signals of their own: they drain
  const daemon = findLeaf(argv)?.leaf.daemon ?? false;
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // who reads the log may go: the work goes on
    if (daemon) return;
    // a reader that has seen enough (`| head`) is no failure
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  if (!daemon) {
    for (const [name, code] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
    ] as const) {
      process.once(name, () => {
        stop.abort(new Error('interrupted'));
        process.exitCode = code;
        process.once(name, () => process.exit(code));
      });
    }
  }
  const code = await main(argv, terminal);
  // a daemon has nothing left to write; on its slower way out Node would take its handlers away and die of a late SIGUSR1
  if (daemon) process.exit(code);
  process.exitCode ||= code;
}

async function readInput(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** @param argv what was typed after `warifu`. Never throws. */
export async function main(argv: readonly string[], terminal: Terminal): Promise<number> {
  // `warifu server` is what `spire-server` is, `warifu proxy server` what `ghostunnel server` is
  const own = argv[0] === 'server' || argv[0] === 'agent' || argv[0] === 'proxy' ? argv.slice(1) : argv;
  if (own.length === 1 && /^--?v(ersion)?$/.test(own[0] ?? '')) {
    terminal.out(`${version()}\n`);
    return 0;
  }
  const found = findLeaf(argv);
  const { runCommand, groupHelp } = await import('./command.ts');
  if (found) return await runCommand(`warifu ${found.leaf.words}`, await found.leaf.load(), found.rest, terminal);

  const typed = argv.findIndex((word) => word.startsWith('-'));
  const words = argv.slice(0, typed < 0 ? argv.length : typed);
  let known = 0;
  while (known < words.length && GROUPS[words.slice(0, known + 1).join(' ')] !== undefined) known++;
  const group = words.slice(0, known).join(' ');
  // as SPIRE's programs: a word too few or wrong is 127, below one of their groups 1
  const notFound = known < 2 ? 127 : 1;
  const help = () => groupHelp(['warifu', ...words.slice(0, known)].join(' '), GROUPS[group] ?? '', childrenOf(group));
  if (known === words.length) {
    const wanted = argv.slice(words.length).some((word) => /^--?h(elp)?$/.test(word));
    if (wanted) terminal.out(help());
    else terminal.err(help());
    return wanted ? 0 : notFound;
  }
  const { nearest } = await import('../core/nearest.ts');
  const near = nearest(
    words[known] ?? '',
    childrenOf(group).map(([word]) => word),
  );
  terminal.err(
    `unknown command ${JSON.stringify(words.join(' '))}${near === undefined ? '' : `; did you mean ${JSON.stringify(['warifu', ...words.slice(0, known), near].join(' '))}?`}\n\n${help()}`,
  );
  return notFound;
}
