/** docs/tls.md says what the table of attacks holds. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { ATTACKS } from './attacks.ts';
import { WRAPPERS } from './wrappers.ts';

const page = readFileSync(resolve(import.meta.dirname, '../../../docs/tls.md'), 'utf8');

/** The table as it must stand in the page. */
function table(): string {
  const servers = WRAPPERS.filter((one) => one.serve).map((one) => one.name);
  const clients = WRAPPERS.map((one) => one.name);
  return [
    `| what the peer shows | reason | servers: ${servers.join(', ')} | clients: ${clients.join(', ')} |`,
    '|---|---|---|---|',
    ...ATTACKS.map(
      ({ what, reason }) =>
        `| ${what} | \`${reason}\` | refused, not a byte delivered | ${what === 'no certificate' ? 'TLS has no such server' : 'refused, not a byte sent'} |`,
    ),
  ].join('\n');
}

test('the table of attacks in docs/tls.md is the one that is tried', () => expect(page).toContain(table()));
