/** The Workload API through three libraries that nobody here wrote: sources, and watches that live through rotation, deletion and restarts. */
import { X509Certificate } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createRunningHouse, type Agent, type House } from '../e2e/house.ts';
import { startWorkload, WorkloadError, type Language, type Workload, type X509Answer } from './setup.ts';

let house: House;
let agent: Agent;
beforeAll(async () => {
  ({ house, agent } = await createRunningHouse());
});
afterAll(async () => {
  await house?.close();
});

const ids = (answer: X509Answer) => answer.svids.map(({ id }) => id).sort();
const serial = (answer: X509Answer) => new X509Certificate(Buffer.from(answer.svids[0]?.chain[0] ?? '', 'base64')).serialNumber;

for (const language of ['go', 'java', 'python'] satisfies Language[]) {
  describe(language, () => {
    const id = (name: string) => `spiffe://example.org/${language}/${name}`;
    let workload: Workload;
    let addr: string;
    let own: string;
    /** An entry for this workload and no other. */
    const admit = (name: string, ttl = 3600) =>
      house.createEntry({ id: id(name), parent: agent, selectors: [workload.selector], x509SvidTtlSeconds: ttl, hint: name });

    beforeAll(async () => {
      workload = await startWorkload(language);
      addr = agent.address;
    });
    afterAll(async () => {
      await workload?.close();
    });

    test('is refused with PERMISSION_DENIED while no entry is its own (WE-25, WAPI-32, WAPI-37, WAPI-47)', async () => {
      for (const call of [
        () => workload.call('x509.fetch', { addr }),
        () => workload.call('x509.bundles', { addr }),
        () => workload.call('jwt.fetch', { addr, audience: ['db'] }),
        () => workload.call('jwt.bundles', { addr }),
      ]) {
        const reason: unknown = await call().then(
          () => new Error(`${language} was answered`),
          (fault: unknown) => fault,
        );
        expect(reason).toBeInstanceOf(WorkloadError);
        expect(reason).toMatchObject({ code: 'PERMISSION_DENIED' });
      }
    });

    test('reads an X.509-SVID that its library accepts and verifies (WE-18, WAPI-21, WAPI-22, WAPI-23)', async () => {
      own = await admit('web');
      await workload.holds(addr, id('web'));
      const answer = await workload.call('x509.fetch', { addr });
      expect(ids(answer)).toEqual([id('web')]);
      expect(answer.bundles).toEqual({ 'example.org': 1 });
      // leaf, our CA, the enterprise's intermediate; the root is in the bundle and nowhere else
      expect(answer.svids[0]?.chain).toHaveLength(3);
      if (language !== 'python') expect(answer.svids[0]?.hint).toBe('web');
      expect(await workload.call('x509.bundles', { addr })).toEqual({ bundles: { 'example.org': 1 } });
    });

    test('its X.509 source becomes ready', async () => {
      const { svids } = await workload.call('x509.source', { addr });
      expect(svids[0]?.id).toBe(id('web'));
    });

    test('gets JWT-SVIDs for the audiences it names and validates them both ways (WAPI-40, WAPI-44)', async () => {
      const { svids } = await workload.call('jwt.fetch', { addr, audience: ['db', 'queue'] });
      expect(svids.map((svid) => svid.id)).toEqual([id('web')]);
      const token = svids[0]?.token ?? '';
      const { sub, aud } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { sub: string; aud: string[] };
      expect(sub).toBe(id('web'));
      // py-spiffe asks with a set, which has no order
      expect(language === 'python' ? aud.sort() : aud).toEqual(['db', 'queue']);

      expect(await workload.call('jwt.validate', { addr, token, audience: ['queue'] })).toMatchObject({ id: id('web') });
      expect(await workload.call('jwt.source', { addr, token, audience: ['db'] })).toMatchObject({ id: id('web') });
      expect((await workload.call('jwt.source', { addr, audience: ['db'] })).id).toBe(id('web'));
      const { bundles } = await workload.call('jwt.bundles', { addr });
      expect(bundles['example.org']?.length).toBeGreaterThan(0);
    });

    test('a JWT-SVID for another audience, or one bit away from a good one, is refused', async () => {
      const { svids } = await workload.call('jwt.fetch', { addr, audience: ['db'] });
      const token = svids[0]?.token ?? '';
      const [header, payload, signature = ''] = token.split('.');
      const flipped = `${header}.${payload}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`;
      await expect(workload.call('jwt.validate', { addr, token, audience: ['other'] })).rejects.toThrow();
      await expect(workload.call('jwt.source', { addr, token, audience: ['other'] })).rejects.toThrow();
      await expect(workload.call('jwt.validate', { addr, token: flipped, audience: ['db'] })).rejects.toThrow();
      await expect(workload.call('jwt.source', { addr, token: flipped, audience: ['db'] })).rejects.toThrow();
    });

    test('asking for the JWT-SVID of an identity that is not its own is refused; for its own it is given (WAPI-42, WAPI-47)', async () => {
      await expect(
        workload.call('jwt.fetch', { addr, audience: ['db'], subject: 'spiffe://example.org/someone/else' }),
      ).rejects.toMatchObject({
        code: 'PERMISSION_DENIED',
      });
      const { svids } = await workload.call('jwt.fetch', { addr, audience: ['db'], subject: id('web') });
      expect(svids.map((svid) => svid.id)).toEqual([id('web')]);
    });

    test('a watch sees entries come and go, each time the whole state (WAPI-9, WAPI-10, WAPI-27)', async () => {
      const watch = workload.follow('x509.watch', { addr });
      await watch.update((answer) => ids(answer).join() === id('web'));

      const second = await admit('web-2');
      await watch.update((answer) => answer.svids.length === 2);
      let from = watch.happenings.length;
      await house.deleteEntry(second);
      await watch.update((answer) => answer.svids.length === 1, { from });

      from = watch.happenings.length;
      await house.deleteEntry(own);
      // go-spiffe tells its user; the other two ask again in silence
      if (language === 'go') await watch.error((code) => code === 'PERMISSION_DENIED', { from });
      expect(await workload.losesAll(addr)).toMatchObject({ code: 'PERMISSION_DENIED' });

      from = watch.happenings.length;
      own = await admit('web');
      await watch.update((answer) => ids(answer).join() === id('web'), { from });
      await watch.stop();
    });

    test('a watch is given a new SVID before the old one ends, and never an equal one twice (WAPI-10)', async () => {
      const short = await admit('short', 8);
      const watch = workload.follow('x509.watch', { addr });
      const shortOf = (answer: X509Answer) => answer.svids.filter((svid) => svid.id === id('short'));
      const first = await watch.update((answer) => shortOf(answer).length === 1);
      const { notAfter, chain } = shortOf(first.data)[0] ?? { notAfter: 0, chain: [] };
      const second = await watch.update((answer) => shortOf(answer).length === 1 && shortOf(answer)[0]?.chain[0] !== chain[0]);
      expect(Date.now()).toBeLessThan(notAfter);
      expect(shortOf(second.data)[0]?.notAfter).toBeGreaterThan(notAfter);
      const states = watch.happenings.items.flatMap((one) => (one.event === 'update' ? [JSON.stringify(one.data)] : []));
      expect(states.filter((state, i) => state === states[i - 1])).toEqual([]);
      await watch.stop();
      await house.deleteEntry(short);
    });

    test('a watch and new calls live through a restart of the server', async () => {
      const watch = workload.follow('x509.watch', { addr });
      await watch.update();
      await house.server.stop();
      expect(ids(await workload.call('x509.fetch', { addr }))).toEqual([id('web')]);
      await house.startServer();

      const added = await admit('after-restart');
      const { data } = await watch.update((answer) => ids(answer).includes(id('after-restart')));
      expect(ids(data)).toEqual([id('after-restart'), id('web')]);
      expect(watch.happenings.items.filter((one) => one.event === 'error')).toEqual([]);
      await watch.stop();
      await house.deleteEntry(added);
    });

    test('a watch finds the agent again after its restart, and so do new calls', async () => {
      const watch = workload.follow('x509.watch', { addr });
      const before = serial((await watch.update()).data);
      const from = watch.happenings.length;
      await agent.process.stop();
      await agent.start();
      // the key of an SVID is in memory only: a new agent has a new one
      await watch.update((answer) => serial(answer) !== before, { from });
      expect(ids(await workload.call('x509.fetch', { addr }))).toEqual([id('web')]);
      await watch.stop();
      await house.deleteEntry(own);
    });
  });
}
