/** Some of everything that a proxy can count: for the tests of its metrics and of what is drawn of them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { IntentionFile } from '../../core/intention-file.ts';
import { NOBODY } from '../../proxy/access.ts';
import { createMetrics } from '../../proxy/metrics.ts';
import { systemClock } from '../../spiffe/clock.ts';
import { ask, backend, client, dial, identityOf, memorySource, server, td } from './rig.ts';

/** Read from a real file, so that what a test says is what an operator can say. */
export async function intentionFile(intention: Readonly<Record<string, object>>): Promise<IntentionFile> {
  const dir = mkdtempSync(join(tmpdir(), 'intentions-'));
  const path = join(dir, 'intentions.json');
  writeFileSync(path, JSON.stringify({ trust_domain: 'example.org', default: 'deny', intention }));
  const file = await IntentionFile.open({ path, pollMs: 0 });
  onTestFinished(async () => {
    await file.close();
    rmSync(dir, { recursive: true });
  });
  return file;
}

export const INTENTIONS = {
  'all-db': { source: 'spiffe://example.org/*', destination: 'db', action: 'allow' },
  'no-web': { source: 'web', destination: 'db', action: 'deny', shadow: true },
  'not-this': { source: 'stranger', destination: 'db', action: 'deny' },
};

/** A proxy that has seen an allowed caller, one that is refused, one without TLS, and a new SVID; and one connection is open still. */
export async function traffic() {
  const behind = await backend();
  const source = memorySource('/db');
  const identities = new Map([['own', identityOf(source)]]);
  const intentions = await intentionFile(INTENTIONS);
  const metrics = createMetrics({ identities, intentions, version: '1.2.3', clock: systemClock });
  onTestFinished(() => metrics.close());
  const inbound = await server(
    behind.port,
    source,
    { access: NOBODY, permissive: true },
    { identities, intentions, observers: [metrics.observer] },
  );
  for (const path of ['/web', '/stranger']) {
    const { port } = await client(inbound.port, memorySource(path));
    await ask(port, 'hello');
  }
  await inbound.end((one) => one.reason === 'POLICY_DENIED');
  await ask(inbound.port, 'in the clear');
  source.set({ svid: td.x509Svid('/db') });
  const { port } = await client(inbound.port, memorySource('/web'));
  const open = await dial(port);
  open.write('still here');
  await new Promise((resolve) => open.once('data', resolve));
  await inbound.end((one) => one.plaintext);
  await inbound.proxy.reload();
  return { inbound, metrics, identities, intentions, source, behind };
}
