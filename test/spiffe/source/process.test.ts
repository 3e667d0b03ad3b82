/** Sources in processes of their own: none is kept alive by a source, but while `ready` waits; and nothing that goes wrong behind it ends one. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, onTestFinished, test } from 'vitest';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi } from '../../../spiffe/testing/workload-api.ts';

const SOURCES = join(import.meta.dirname, '../../../spiffe/source');

/** Runs `code` with `options` for a source; its lines, and its end. */
function program(address: string, code: string) {
  const script = `
    import { X509Source } from '${SOURCES}/x509-source.ts';
    import { JwtSource } from '${SOURCES}/jwt-source.ts';
    import { BundleSource } from '${SOURCES}/bundle-source.ts';
    import { X509FileSource } from '${SOURCES}/file-source.ts';
    const say = (...words) => console.log(...words);
    const log = { debug() {}, info() {}, error() {}, warn: (_, { error }) => say(error.code) };
    const options = { address: '${address}', backoff: () => 20, log };
    ${code}`;
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  let faults = '';
  child.stderr.on('data', (chunk) => (faults += String(chunk)));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    child,
    /** Rejects when the program has ended. */
    line: async () => {
      const { value, done } = await lines.next();
      if (done) throw new Error(`the program has ended: ${faults}`);
      return value;
    },
    end: once(child, 'close').then(([code]) => ({ code, faults })),
  };
}

async function api(late = false): Promise<FakeWorkloadApi> {
  const made = new FakeWorkloadApi(EphemeralTrustDomain.create('example.org'));
  onTestFinished(() => made[Symbol.asyncDispose]());
  return late ? made : made.start();
}

test('a process ends though its sources were never closed, and their streams stand', async () => {
  const { address } = await api();
  const { line, end } = program(
    address,
    `const [x509, jwt, bundles] = [new X509Source(options), new JwtSource(options), new BundleSource(options)];
     await Promise.all([x509.ready(), jwt.ready(), bundles.ready()]);
     const token = await jwt.fetch({ audience: 'db' });
     say(String(x509.svid.id), token.audience.join(), bundles.bundles.size);`,
  );
  expect(await line()).toBe('spiffe://example.org/workload db 1');
  expect(await end).toEqual({ code: 0, faults: '' });
}, 20_000);

test('a process ends though its sources look for what is not there', async () => {
  const { address } = await api(true);
  const { end } = program(
    address,
    `for (const Source of [X509Source, JwtSource, BundleSource]) new Source(options);
     new X509FileSource({ directory: '/nobody/is/here', pollMs: 10 });`,
  );
  expect(await end).toEqual({ code: 0, faults: '' });
}, 20_000);

test('a process stays while it awaits ready, through tries in vain, and ends when it is done', async () => {
  const agent = await api(true);
  const { child, line, end } = program(
    agent.address,
    `const source = new X509Source(options); await source.ready(); say(String(source.svid.id));`,
  );
  for (let n = 0; n < 3; n++) expect(await line()).toBe('UNAVAILABLE');
  expect(child.exitCode).toBeNull();
  await agent.start();
  let last: string | undefined = 'UNAVAILABLE';
  while (last === 'UNAVAILABLE') last = await line();
  expect(last).toBe('spiffe://example.org/workload');
  expect(await end).toEqual({ code: 0, faults: '' });
}, 20_000);

test('nothing that an agent does ends a process that goes on', async () => {
  const agent = await api();
  const { line, end } = program(
    agent.address,
    `const source = await X509Source.open(options);
     new JwtSource(options);
     new BundleSource(options);
     say('open');
     source.onChange(() => { say(source.svid.id.path); throw new Error('mine'); });
     const stop = new AbortController();
     source.ready(stop.signal).catch(() => {});
     const timer = setInterval(() => {
       try { if (source.svid.id.path === '/last') { say('last'); clearInterval(timer); } } catch {}
     }, 10);`,
  );
  const hear = async (code: string) => {
    while ((await line()) !== code);
  };
  await hear('open');
  agent.garble('fields');
  await hear('SVID_INVALID');
  agent.garble('octets');
  await hear('INTERNAL');
  agent.deny();
  await hear('DENIED');
  agent.resume();
  // a stream stands that can be dropped
  await hear('/workload');
  agent.drop();
  await hear('UNAVAILABLE');
  await agent.stop();
  await hear('UNAVAILABLE');
  await agent.start();
  agent.set({ identities: ['/last'] });
  await hear('last');
  expect(await end).toEqual({ code: 0, faults: '' });
}, 20_000);
