/** Start-up: server until its admin socket answers, agent until the first SVID is at a go-spiffe client, and the command line's own time. */
import { createHouse } from '../../test/e2e/house.ts';
import { startWorkload } from '../../test/interop/setup.ts';
import { main, median, wall, type Row } from './figure.ts';

const ROUNDS = 7;

export async function start(program: readonly string[]): Promise<Row[]> {
  const house = await createHouse({ program, logLevel: 'INFO' });
  const go = await startWorkload('go');
  try {
    const firstServer = await wall(() => house.startServer());
    const agent = await house.createAgent();
    await house.createEntry({ id: '/start', parent: agent });

    const watch = go.follow('x509.watch', { addr: agent.address });
    const firstSvid = async () => {
      const from = watch.happenings.length;
      const started = performance.now();
      const up = agent.start();
      const { atMs } = await watch.update(undefined, { from });
      await up;
      return atMs - started;
    };
    const attesting = await firstSvid();
    const again: number[] = [];
    for (let i = 0; i < ROUNDS; i++) {
      await agent.process.stop();
      again.push(await firstSvid());
    }
    await watch.stop();
    await agent.process.stop();

    const servers: number[] = [];
    for (let i = 0; i < ROUNDS; i++) {
      await house.server.stop();
      servers.push(await wall(() => house.startServer()));
    }

    const commands: [string, string[]][] = [
      ['server entry count', ['server', 'entry', 'count']],
      ['server healthcheck', ['server', 'healthcheck']],
      ['--help', ['--help']],
    ];
    const rows: Row[] = [];
    for (const [what, args] of commands) {
      await house.ok(...args);
      const times: number[] = [];
      for (let i = 0; i < ROUNDS; i++) times.push(await wall(() => house.ok(...args)));
      rows.push({ what: `warifu ${what}, median of ${ROUNDS}`, value: median(times), unit: 'ms', limit: 150 });
    }
    return [
      { what: 'server: first start until its socket answers (new keys, new database)', value: firstServer, unit: 'ms', limit: 700 },
      { what: `server: start until its socket answers, median of ${ROUNDS}`, value: median(servers), unit: 'ms', limit: 700 },
      { what: 'agent: start until the first SVID at go-spiffe, with attestation', value: attesting, unit: 'ms', limit: 700 },
      { what: `agent: start until the first SVID at go-spiffe, median of ${ROUNDS}`, value: median(again), unit: 'ms', limit: 700 },
      ...rows,
    ];
  } finally {
    await go.close();
    await house.close();
  }
}

await main(import.meta.url, start);
