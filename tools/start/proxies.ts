/** The last step of `npm start`: a plain HTTP service reached through two proxies, and an intention that forbids it while a connection is open. */
import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { Agent, createServer, get } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { systemClock } from '../../spiffe/clock.ts';
import type { Program } from './program.ts';

export interface ProxiesParts {
  /** Where the file of intentions is written. */
  readonly folder: string;
  readonly trustDomain: string;
  /** Starts `warifu` with these words as the program `web` or `db`, whose path says who it is. */
  readonly start: (who: 'web' | 'db', ...words: readonly string[]) => Program;
  readonly show: (text: string) => void;
}

/** Throws what did not happen as it must. The proxies run on until who started them stops them; the service behind them ends here. */
export async function showProxies({ folder, trustDomain, start, show }: ProxiesParts): Promise<void> {
  const intentions = join(folder, 'intentions.hcl');
  const rule = (action: 'allow' | 'deny') => {
    const text = `trust_domain = "${trustDomain}"\ndefault = "deny"\nintention "web-db" {\n  source = "web"\n  destination = "db"\n  action = "${action}"\n}\n`;
    writeFileSync(`${intentions}.new`, text, { mode: 0o600 });
    renameSync(`${intentions}.new`, intentions);
  };
  rule('allow');
  const service = createServer((_, response) => response.end('orders: 3\n')).listen(0, '127.0.0.1');
  await once(service, 'listening');
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    const target = (service.address() as AddressInfo).port;
    const log = ['--log-format', 'json', '--use-workload-api'] as const;
    const db = start(
      'db',
      'proxy',
      'server',
      '--listen',
      '127.0.0.1:0',
      '--target',
      `127.0.0.1:${target}`,
      '--intentions',
      intentions,
      ...log,
    );
    const dbPort = await portOf(db);
    show(`warifu proxy server --listen 127.0.0.1:${dbPort} --target 127.0.0.1:${target} --use-workload-api --intentions ${intentions}`);
    const peer = ['--verify-uri', `spiffe://${trustDomain}/db`, '--allow-uid', String(process.getuid?.() ?? 0)] as const;
    const web = start('web', 'proxy', 'client', '--listen', '127.0.0.1:0', '--target', `127.0.0.1:${dbPort}`, ...peer, ...log);
    const port = await portOf(web);
    show(`warifu proxy client --listen 127.0.0.1:${port} --target 127.0.0.1:${dbPort} --use-workload-api ${peer.join(' ')}`);

    const ask = () =>
      new Promise<string>((answer, refused) => {
        get({ port, agent }, (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (piece: string) => (text += piece));
          response.once('end', () => answer(text.trim()));
        }).once('error', refused);
      });
    if ((await ask()) !== 'orders: 3') throw new Error('the plain service was not reached through the proxies');
    show(`http://127.0.0.1:${port}/ answers "orders: 3": plain HTTP at both ends, mTLS between`);
    const [kept] = Object.values(agent.freeSockets).flat();
    if (!kept) throw new Error('the connection is not kept open');
    const ended = once(kept, 'close');
    const at = systemClock.monotonic();
    rule('deny');
    await Promise.race([
      ended,
      systemClock.sleep(10_000, undefined, { ref: false }).then(() => Promise.reject(new Error('it is still open'))),
    ]);
    const line = await db.line((one) => one.includes('"closed pipe"') && one.includes('POLICY_CHANGED'));
    const { reason, peer: who } = JSON.parse(line) as { readonly reason: string; readonly peer: string };
    show(
      `the intention now denies web → db: after ${Math.round(systemClock.monotonic() - at)} ms the open connection of ${who} is ended, reason ${reason}`,
    );
    const again = await ask().catch((error: unknown) => error);
    if (!(again instanceof Error)) throw new Error(`a new connection was let in: ${String(again)}`);
    show('and a new one is refused');
    rule('allow');
  } finally {
    agent.destroy();
    service.close();
  }
}

async function portOf(proxy: Program): Promise<number> {
  const line = await proxy.line((one) => one.includes('"listening for connections"'));
  return Number((JSON.parse(line) as { readonly address: string }).address.split(':').pop());
}
