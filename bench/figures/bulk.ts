/** `entry create -data` of 5,000 entries: wall time of the command. Stock SPIRE: 12.4 s. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createHouse } from '../../test/e2e/house.ts';
import { main, wall, type Row } from './figure.ts';

const COUNT = 5_000;

export async function bulk(program: readonly string[]): Promise<Row[]> {
  const house = await createHouse({ program, logLevel: 'INFO' });
  try {
    await house.startServer();
    const file = join(house.dir, 'entries.json');
    const entries = Array.from({ length: COUNT }, (_, i) => ({
      selectors: [
        { type: 'unix', value: `uid:${100_000 + i}` },
        { type: 'unix', value: `user:svc-${i}` },
      ],
      spiffe_id: `spiffe://${house.trustDomain}/team-${i % 50}/service-${i}`,
      parent_id: `spiffe://${house.trustDomain}/nodes/${i % 20}`,
    }));
    writeFileSync(file, JSON.stringify({ entries }));
    const ms = await wall(() => house.ok('server', 'entry', 'create', '-data', file));
    const count = await house.ok('server', 'entry', 'count');
    if (!count.includes(String(COUNT))) throw new Error(`the server counts: ${count}`);
    return [{ what: `entry create -data, ${COUNT} entries`, value: ms, unit: 'ms', limit: 1_000 }];
  } finally {
    await house.close();
  }
}

await main(import.meta.url, bulk);
