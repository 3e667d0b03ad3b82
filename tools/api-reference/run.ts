/** `npm run api`: makes docs/api/*.md and docs/errors.md of the docstrings in spiffe/. */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './names.ts';
import { pages } from './pages.ts';

const made = pages();
const folder = join(ROOT, 'docs/api');
mkdirSync(folder, { recursive: true });
for (const name of readdirSync(folder)) if (!made.has(`docs/api/${name}`)) rmSync(join(folder, name));
for (const [file, text] of made) writeFileSync(join(ROOT, file), text);
console.error(`${made.size} pages`);
