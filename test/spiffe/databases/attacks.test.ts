/** Driver × attack: no word of a driver's reaches a server that must be refused, whatever it shows. What a driver's own TLS can't refuse is here as what really happens. */
import { describe, expect, test } from 'vitest';
import { PREFACES, trap } from './trap.ts';
import { ATTACKS } from '../tls/attacks.ts';
import { closing, failure, material, settings, words } from './rig.ts';
import { DATABASE, nameOf, PASSWORD, QUERY, USER, WAYS } from './ways.ts';
import { outcome } from './outcomes.ts';

const { shown, source, verdicts } = await material();

describe.each(WAYS.map((way) => [nameOf(way), way] as const))('%s', (_, way) => {
  const open = async (what: string) => {
    const server = await trap(shown(what), PREFACES[way.preface]);
    const client = way.client(source, settings, server.port);
    return { server, client: closing(client, () => server.drop()) };
  };

  test('talks to the right server', async () => {
    const { server, client } = await open('good');
    void failure(client.ask());
    await expect.poll(() => words(server.received), { timeout: 10_000 }).toContain(USER);
    expect(server.handshakes[0]).toEqual({ sha256: source.svid.leaf.sha256, resumed: false });
    // only what a protocol asks for TLS with was in plain
    for (const secret of [USER, PASSWORD, DATABASE, QUERY]) expect(words(server.plain)).not.toContain(secret);
  });

  for (const { what } of ATTACKS.filter((attack) => attack.what !== 'no certificate')) {
    const expected = outcome(way, what);
    if (expected.is === 'refused')
      test(`refuses ${what} (${expected.by}), and says nothing to it`, async () => {
        const { server, client } = await open(what);
        const told = await failure(client.ask());
        if (expected.by === 'OpenSSL') expect(told).toMatch(expected.words);
        else expect(told).toContain(verdicts(what, expected.bundles).message);
        await client.close();
        await expect.poll(() => server.open, { timeout: 10_000 }).toBe(0);
        expect(words(server.received)).toBe('');
        for (const secret of [USER, PASSWORD, DATABASE, QUERY]) expect(words(server.plain)).not.toContain(secret);
      });
    else
      test(`a gap: lets ${what} through`, async () => {
        const { server, client } = await open(what);
        void failure(client.ask());
        await expect.poll(() => words(server.received), { timeout: 10_000 }).toContain(USER);
      });
  }
});
