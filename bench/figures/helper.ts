/**
 * The helper under renewals without end: SVIDs pushed one after the other, each written in three formats, while readers in a process of their own look without
 * pause. A read is torn when a file is empty or partial, or a key does not fit its certificate. `--rotations N`, by default 1,000.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { Rig, triple, until } from '../../test/proxy/helper/rig.ts';
import { cpuMs, main, type Row } from './figure.ts';

export interface Rotations {
  readonly rotations: number;
  readonly reads: number;
  readonly torn: number;
  readonly elapsedMs: number;
  readonly cpuMs: number;
}

const READER = join(import.meta.dirname, '../helper/reader.ts');

/** @param rig whose Workload API listens and has an identity. */
export async function rotate(rig: Rig, rotations: number): Promise<Rotations> {
  const [pem, combined, folder] = ['pem', 'combined', 'folder'].map((name) => rig.folder(name)) as [string, string, string];
  const daemon = rig.spawn(`${triple(pem)}
output "combined" { format = "combined" directory = "${combined}" }
output "folder" { format = "folder" directory = "${folder}" }
log_level = "error"
health_checks { listener_enabled = true socket_path = "${join(rig.directory, 'probes.sock')}" }`);
  const serials = () => [
    X509Svid.fromPem(readFileSync(join(pem, 'svid.pem')), readFileSync(join(pem, 'svid_key.pem'))),
    X509Svid.fromPem(readFileSync(join(combined, 'svid_combined.pem'))),
    X509Svid.fromPem(readFileSync(join(folder, 'credential-bundle.pem'))),
  ];
  const written = (serial: string | undefined) =>
    until('every format is written', () => serials().every(({ leaf }) => leaf.serialNumber === serial), 60_000);
  await written(rig.api.svids[0]?.leaf.serialNumber);
  const reader = spawn(process.execPath, [READER, pem, combined, folder], { stdio: ['pipe', 'pipe', 'inherit'] });
  let said = '';
  reader.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  const ended = new Promise((done) => reader.once('close', done));
  await until('the reader reads', () => said.includes('begun'));
  const startedMs = performance.now();
  const cpuBefore = cpuMs(daemon.pid);
  for (let count = 0; count < rotations; count++) {
    rig.api.renew();
    await written(rig.api.svids[0]?.leaf.serialNumber);
  }
  const elapsedMs = performance.now() - startedMs;
  const used = cpuMs(daemon.pid) - cpuBefore;
  reader.stdin.end();
  await ended;
  await daemon.stop();
  const { reads, torn } = JSON.parse(said.split('\n').at(-2) ?? '') as Pick<Rotations, 'reads' | 'torn'>;
  return { rotations, reads, torn, elapsedMs, cpuMs: used };
}

export async function helper(): Promise<Row[]> {
  const { values } = parseArgs({ options: { rotations: { type: 'string', default: '1000' } }, strict: false });
  const rig = new Rig({ identities: ['/web'] });
  try {
    await rig.api.start();
    const { rotations, reads, torn, elapsedMs, cpuMs: used } = await rotate(rig, Number(values['rotations']));
    return [
      { what: `helper: torn reads of ${reads} in ${rotations} rotations of three formats`, value: torn, unit: '', limit: 0 },
      { what: 'helper: reads', value: reads, unit: '' },
      { what: 'helper: from push until all three formats are written and seen', value: elapsedMs / rotations, unit: 'ms' },
      { what: 'helper: CPU time for a rotation of three formats', value: used / rotations, unit: 'ms' },
    ];
  } finally {
    await rig[Symbol.asyncDispose]();
  }
}

await main(import.meta.url, helper);
