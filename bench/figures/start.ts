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

    // a client that waits from before would wait for its own back-off (1 s in go-spiffe): this one comes when the socket is there
    const firstSvid = () =>
      wall(async () => {
        await agent.start();
        const { svids } = await go.call('x509.source', { addr: agent.address });
        if (svids[0]?.id !== `spiffe://${house.trustDomain}/start`) throw new Error(`the first SVID is ${JSON.stringify(svids)}`);
      });
    const attesting = await firstSvid();
    const again: number[] = [];
    for (let i = 0; i < ROUNDS; i++) {
      await agent.process.stop();
      again.push(await firstSvid());
    }
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
