/** Two trust domains, one of SPIRE's server with our agent and one of ours with SPIRE's agent, that know each other's bundle. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createPair, NAMES, otherThan, type Pair, type PairAgent, POLL, type Side, SIDES } from './pair.ts';

interface Domain {
  readonly side: Side;
  readonly name: string;
  readonly pair: Pair;
  readonly agent: PairAgent;
}

const DOMAINS: Readonly<Record<Side, string>> = { spire: 'spire.test', warifu: 'warifu.test' };
const domains = new Map<Side, Domain>();
const of = (side: Side): Domain => {
  const found = domains.get(side);
  if (!found) throw new Error('not made');
  return found;
};

beforeAll(async () => {
  for (const side of SIDES) {
    const pair = await createPair(side, { trustDomain: DOMAINS[side] });
    const agent = await pair.createAgent('agent', otherThan(side));
    domains.set(side, { side, name: DOMAINS[side], pair, agent });
  }
  for (const side of SIDES) await exchange(of(side), of(otherThan(side)));
  for (const { name, side, pair, agent } of domains.values()) {
    await pair.house.createEntry({
      id: `spiffe://${name}/web`,
      parent: agent.agent,
      more: ['-federatesWith', `spiffe://${DOMAINS[otherThan(side)]}`],
    });
    await agent.start();
  }
});
afterAll(async () => {
  for (const { pair } of domains.values()) await pair.close();
});

/** As operators do it, by the command line that belongs to each server. */
async function exchange(from: Domain, to: Domain): Promise<void> {
  const shown = await from.pair.run(from.side, ['server', 'bundle', 'show', '-format', 'spiffe']);
  expect(shown.code, shown.stderr).toBe(0);
  const path = join(to.pair.house.dir, `${from.name}.json`);
  writeFileSync(path, shown.stdout);
  const set = await to.pair.run(to.side, ['server', 'bundle', 'set', '-format', 'spiffe', '-id', `spiffe://${from.name}`, '-path', path]);
  expect(set, set.stderr).toMatchObject({ code: 0, stdout: 'bundle set.\n' });
}

async function federated({ pair, agent }: Domain): Promise<Readonly<Record<string, string>>> {
  const { stdout, stderr } = await pair.run(agent.side, ['agent', 'api', 'fetch', 'x509', '-output', 'json'], { agent });
  return stdout === '' ? { fault: stderr } : (JSON.parse(stdout) as { federated_bundles: Record<string, string> }).federated_bundles;
}

async function token({ pair, agent }: Domain, audience: string): Promise<string> {
  const { stdout, stderr, code } = await pair.run(agent.side, ['agent', 'api', 'fetch', 'jwt', '-audience', audience, '-output', 'json'], {
    agent,
  });
  expect(code, stderr).toBe(0);
  return (JSON.parse(stdout) as [{ svids: [{ svid: string }] }])[0].svids[0].svid;
}

for (const side of SIDES) {
  const other = otherThan(side);
  describe(`${NAMES[other]} agent on ${NAMES[side]} server`, () => {
    test('has the bundle of the other trust domain, as that one has it itself', async () => {
      const id = `spiffe://${DOMAINS[other]}`;
      await expect.poll(async () => Object.keys(await federated(of(side))), POLL).toEqual([id]);
      await expect.poll(() => of(other).agent.fetched(), POLL).toContain('/web\n');
      const [own] = await of(other).agent.svids();
      expect((await federated(of(side)))[id]).toBe(own?.bundle);
    });

    test('validates a JWT-SVID of the other trust domain, and no other', async () => {
      const { pair, agent } = of(side);
      const validated = (svid: string) =>
        pair.run(agent.side, ['agent', 'api', 'validate', 'jwt', '-audience', 'db', '-svid', svid], { agent });
      const svid = await token(of(other), 'db');
      const good = await validated(svid);
      expect(good.code, good.stderr).toBe(0);
      expect(good.stdout).toContain(`SPIFFE ID : spiffe://${DOMAINS[other]}/web\n`);
      const [header = '', claims = '', signature = ''] = svid.split('.');
      const forged = Buffer.from(Buffer.from(claims, 'base64url').toString().replace('/web', '/root')).toString('base64url');
      expect((await validated(`${header}.${forged}.${signature}`)).code).toBe(1);
      expect((await validated(await token(of(other), 'another'))).code).toBe(1);
    });

    test('loses the bundle when the entry no longer federates', async () => {
      const { pair, name } = of(side);
      const deleted = await pair.run(side, ['server', 'bundle', 'delete', '-id', `spiffe://${DOMAINS[other]}`, '-mode', 'dissociate']);
      expect(deleted.code, deleted.stderr).toBe(0);
      await expect.poll(() => federated(of(side)), POLL).toEqual({});
      expect((await of(side).agent.svids())[0]?.spiffe_id).toBe(`spiffe://${name}/web`);
    });
  });
}
