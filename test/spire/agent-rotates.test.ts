/** Short lifetimes on the other's server: the agent renews itself and what it serves, and the server's CA changes under it. */
import { X509Certificate } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createPair, NAMES, otherThan, type Pair, type PairAgent, POLL, SIDES } from './pair.ts';

/** A CA changes at five sixths of its lifetime, seen every ten seconds by SPIRE. */
const TWO_CAS_MS = 150_000;

describe.concurrent('rotation', () => {
  for (const server of SIDES) {
    const side = otherThan(server);
    describe(`${NAMES[side]} agent on ${NAMES[server]} server`, () => {
      let pair: Pair;
      let agent: PairAgent;

      beforeAll(async () => {
        pair = await createPair(server, { caTtl: '60s', x509SvidTtl: '15s', serverSettings: ['agent_ttl = "20s"'] });
        agent = await pair.createAgent('agent', side);
        await pair.house.createEntry({ id: '/web', parent: agent.agent });
        await agent.start();
        await pollUntil(() => agent.fetched().then((text) => text.includes('spiffe://example.org/web\n')), POLL.timeout);
      });
      afterAll(() => pair?.close());

      test(
        'every SVID that is served is good, through two CAs and three certificates of the agent',
        async () => {
          const leaves = new Set<string>();
          const issuers = new Set<string>();
          const agents = new Set<string>();
          const jwts = new Set<string>();
          await pollUntil(async () => {
            const [svid] = await agent.svids();
            if (!svid) throw new Error('no SVID is served');
            const [leaf, ...above] = certificates(svid.x509_svid);
            const [root] = certificates(svid.bundle);
            if (!leaf || !root) throw new Error('an SVID without certificate or bundle');
            for (const one of [leaf, ...above]) {
              expect(one.validFromDate.getTime()).toBeLessThanOrEqual(Date.now());
              expect(one.validToDate.getTime()).toBeGreaterThan(Date.now());
            }
            for (const [i, one] of [leaf, ...above].entries()) expect(one.verify((above[i] ?? root).publicKey)).toBe(true);
            expect(leaf.validToDate.getTime()).toBeLessThanOrEqual(above[0]?.validToDate.getTime() ?? 0);
            leaves.add(leaf.serialNumber);
            issuers.add(above[0]?.serialNumber ?? '');
            agents.add(/Serial number +: (\d+)/.exec(await pair.house.ok('server', 'agent', 'show', '-spiffeID', agent.id))?.[1] ?? '');
            const jwt = await pair.run(side, ['agent', 'api', 'fetch', 'jwt', '-audience', 'db', '-output', 'json'], { agent });
            expect(jwt.code, jwt.stderr).toBe(0);
            const [{ svids }] = JSON.parse(jwt.stdout) as [{ svids: [{ svid: string }] }];
            jwts.add((JSON.parse(Buffer.from(svids[0].svid.split('.')[0] ?? '', 'base64url').toString()) as { kid: string }).kid);
            return issuers.size >= 3 && agents.size >= 3 && leaves.size >= 6 && jwts.size >= 2;
          }, TWO_CAS_MS);
          expect(agent.process.end).toBeUndefined();
        },
        TWO_CAS_MS + 30_000,
      );
    });
  }
});

/** Again and again, until it is true; what it throws is thrown. */
async function pollUntil(isDone: () => Promise<boolean>, withinMs: number): Promise<void> {
  const started = performance.now();
  while (!(await isDone())) {
    if (performance.now() - started > withinMs) throw new Error(`not within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, POLL.interval));
  }
}

/** DER, one certificate after the other, in base64. */
function certificates(base64: string): X509Certificate[] {
  const found: X509Certificate[] = [];
  for (let rest = Buffer.from(base64, 'base64'); rest.length > 0; ) {
    const one = new X509Certificate(rest);
    found.push(one);
    rest = rest.subarray(one.raw.length);
  }
  return found;
}
