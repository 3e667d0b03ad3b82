/** docs/databases.md says what the tables of attacks and of gaps hold. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import * as databases from '../../../spiffe/databases/index.ts';
import { attackTable, propertyTable } from './outcomes.ts';

const page = readFileSync(resolve(import.meta.dirname, '../../../docs/databases.md'), 'utf8');

test('the table of attacks in docs/databases.md is the one that is tried', () => expect(page).toContain(attackTable()));
test('the table of what else a driver can and can not do is there too', () => expect(page).toContain(propertyTable()));
test.each(Object.keys(databases))('docs/databases.md tells of %s', (name) => expect(page).toContain(`${name}(`));
