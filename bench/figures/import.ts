/** What importing each part of the built package costs a program: whole processes with the import and without it, in turns, median of each. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { main, median, type Row, wall } from './figure.ts';

const ROUNDS = 25;
const PACKAGE = join(import.meta.dirname, '../../spiffe');
/** The only part that has a limit: it is for programs that start for each request. */
const LIMITS: Readonly<Record<string, number>> = { './jwt': 30 };

async function cost(script: string): Promise<number> {
  return wall(() => {
    const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
    return Promise.resolve();
  });
}

async function figure(): Promise<Row[]> {
  const built = spawnSync('npm', ['run', '--silent', 'build:sdk'], { cwd: join(PACKAGE, '..'), encoding: 'utf8' });
  if (built.status !== 0) throw new Error(built.stderr);
  const { exports } = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8')) as {
    exports: Readonly<Record<string, string | { readonly default: string }>>;
  };
  const parts = Object.entries(exports).flatMap(([name, target]) =>
    typeof target === 'object' ? [[name, `await import('${join(PACKAGE, target.default)}')`] as const] : [],
  );
  const rows: Row[] = [];
  for (const [name, script] of parts) {
    const [without, with_]: [number[], number[]] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      without.push(await cost(''));
      with_.push(await cost(script));
    }
    const limit = LIMITS[name];
    rows.push({
      what: `import of @warifu/spiffe${name.slice(1)}`,
      value: median(with_) - median(without),
      unit: 'ms',
      ...(limit !== undefined && { limit }),
    });
  }
  return rows;
}

await main(import.meta.url, figure);
