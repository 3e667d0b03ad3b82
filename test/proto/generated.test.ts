/** proto/gen is what tools/generate.ts makes of proto/: nobody edits it by hand, nobody forgets to make it anew. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '..', '..');

function files(folder: string): Map<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  return new Map(names.sort().map((name) => [name, readFileSync(join(folder, name), 'utf8')]));
}

test('proto/gen is fresh', { timeout: 60_000 }, () => {
  const scratch = mkdtempSync(join(tmpdir(), 'warifu-generated-'));
  try {
    execFileSync(process.execPath, [join(root, 'tools', 'generate.ts'), scratch], { stdio: 'pipe' });
    const made = files(scratch);
    const kept = files(join(root, 'proto', 'gen'));
    expect([...kept.keys()]).toEqual([...made.keys()]);
    for (const [name, text] of made) expect(kept.get(name) === text, `${name} is stale: npm run generate`).toBe(true);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
});
