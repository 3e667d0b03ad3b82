/** Entry created → its SVID at a go-spiffe client whose stream is open through another entry; entry deleted → its SVID gone there. Stock SPIRE: 3.9 s and 2.8 s. */
import { createRunningHouse } from '../../test/e2e/house.ts';
import { startWorkload, type X509Answer } from '../../test/interop/setup.ts';
import { main, median, quantile, type Row } from './figure.ts';
import { Spire, wireId } from './spire.ts';

const ROUNDS = 100;
/** Rounds before the count begins: compilers warm up. */
const WARM = 10;

export async function latency(program: readonly string[]): Promise<Row[]> {
  const { house, agent } = await createRunningHouse({ program, logLevel: 'INFO' });
  const go = await startWorkload('go');
  const admin = Spire.admin(house.socketPath);
  try {
    const open = `spiffe://${house.trustDomain}/open`;
    await house.createEntry({ id: open, parent: agent });
    const watch = go.follow('x509.watch', { addr: agent.address });
    const holds = (id: string) => (answer: X509Answer) => answer.svids.some((svid) => svid.id === id);
    await watch.update(holds(open));

    const selectors = [{ type: 'unix', value: `uid:${process.getuid?.() ?? 0}` }];
    const created: number[] = [];
    const deleted: number[] = [];
    for (let round = 0; round < WARM + ROUNDS; round++) {
      const id = `spiffe://${house.trustDomain}/round/${round}`;
      const entry = { spiffe_id: wireId(id), parent_id: wireId(agent.id), selectors };

      let from = watch.happenings.length;
      let started = performance.now();
      const [result] = (await admin.call('/spire.api.server.entry.v1.Entry/BatchCreateEntry', { entries: [entry] })).results;
      if (result?.status.code !== 0) throw new Error(`create: ${result?.status.message}`);
      const there = await watch.update(holds(id), { from });
      if (round >= WARM) created.push(there.atMs - started);

      from = watch.happenings.length;
      started = performance.now();
      const [gone] = (await admin.call('/spire.api.server.entry.v1.Entry/BatchDeleteEntry', { ids: [result.entry.id] })).results;
      if (gone?.status.code !== 0) throw new Error(`delete: ${gone?.status.message}`);
      const without = await watch.update((answer) => !holds(id)(answer), { from });
      if (round >= WARM) deleted.push(without.atMs - started);
    }
    return [
      { what: `call to create sent → SVID at go-spiffe, median of ${ROUNDS}`, value: median(created), unit: 'ms', limit: 20 },
      { what: 'the same, 99th of 100', value: quantile(created, 0.99), unit: 'ms' },
      { what: `call to delete sent → gone at go-spiffe, median of ${ROUNDS}`, value: median(deleted), unit: 'ms', limit: 20 },
      { what: 'the same, 99th of 100', value: quantile(deleted, 0.99), unit: 'ms' },
    ];
  } finally {
    admin.close();
    await go.close();
    await house.close();
  }
}

await main(import.meta.url, latency);
