/**
 * Wire libraries: encode and decode of a 1,000-entry sync answer and of one X.509-SVID response, with the generated code that we use (ts-proto over
 * @bufbuild/protobuf/wire), protobufjs (by reflection, as @grpc/proto-loader does, and with its generated static code) and protobuf-es. Prints a table.
 * Each library first proves that what it decodes and encodes again is the same, byte for byte.
 */
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { compileFunction } from 'node:vm';
import { brotliDecompressSync } from 'node:zlib';
import { createFileRegistry, fromBinary, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import protobuf from 'protobufjs';
import 'protobufjs/ext/descriptor.js';
import { DESCRIPTORS } from '../proto/gen/descriptors.ts';
import { SyncAuthorizedEntriesResponse } from '../proto/gen/spire/api/server/entry/v1/entry.ts';
import { Entry } from '../proto/gen/spire/api/types/entry.ts';
import { X509SVIDResponse } from '../proto/gen/spiffe/workload/workload.ts';
import { generateEcKey } from '../core/x509/key.ts';

const ROOT = resolve(import.meta.dirname, '..');
const ROUNDS = 7;

const entries = Array.from({ length: 1000 }, (_, i) =>
  Entry.fromPartial({
    id: `6f2c1f0e-0000-4000-8000-${String(i).padStart(12, '0')}`,
    spiffeId: { trustDomain: 'example.org', path: `/ns/prod/sa/service-${i}` },
    parentId: { trustDomain: 'example.org', path: `/spire/agent/x509pop/${'0'.repeat(36)}${String(i % 10).padStart(4, '0')}` },
    selectors: [
      { type: 'k8s', value: 'ns:prod' },
      { type: 'k8s', value: `sa:service-${i}` },
      { type: 'unix', value: `uid:${1000 + i}` },
    ],
    x509SvidTtl: 3600,
    jwtSvidTtl: 300,
    federatesWith: i % 10 === 0 ? ['spiffe://partner.example'] : [],
    dnsNames: [`service-${i}.prod.svc`],
    revisionNumber: i % 7,
    hint: i % 3 === 0 ? 'internal' : '',
    createdAt: 1_780_000_000 + i,
  }),
);
/** Certificates of the usual size, a real key, and two roots. */
const certificate = Buffer.alloc(620, 0x30);
const svid = {
  spiffeId: 'spiffe://example.org/ns/prod/sa/payments-api',
  x509Svid: Buffer.concat([certificate, certificate]),
  x509SvidKey: generateEcKey().export({ type: 'pkcs8', format: 'der' }),
  bundle: Buffer.concat([certificate, certificate]),
  hint: 'internal',
};

const MESSAGES = [
  {
    what: '1,000-entry SyncAuthorizedEntries answer',
    type: 'spire.api.server.entry.v1.SyncAuthorizedEntriesResponse',
    bytes: Buffer.from(SyncAuthorizedEntriesResponse.encode(SyncAuthorizedEntriesResponse.fromPartial({ entries })).finish()),
    times: 20,
  },
  {
    what: 'X.509-SVID response',
    type: 'X509SVIDResponse',
    bytes: Buffer.from(X509SVIDResponse.encode(X509SVIDResponse.fromPartial({ svids: [svid] })).finish()),
    times: 20_000,
  },
];

interface Codec {
  readonly decode: (bytes: Uint8Array) => unknown;
  readonly encode: (message: never) => Uint8Array;
}

const descriptors = brotliDecompressSync(Buffer.from(DESCRIPTORS, 'base64'));

/** The messages' code of protobufjs' own generator, made now and run from memory. */
function staticRoot(): Record<string, unknown> {
  const pbjs = [join(ROOT, 'node_modules/protobufjs-cli/bin/pbjs'), '-t', 'static-module', '-w', 'commonjs', '-p', join(ROOT, 'proto')];
  const lean = ['--no-create', '--no-verify', '--no-convert', '--no-delimited', '--no-service', '--no-comments'];
  const files = ['spiffe/workload/workload.proto', 'spire/api/server/entry/v1/entry.proto'].map((file) => join(ROOT, 'proto', file));
  const code = execFileSync(process.execPath, [...pbjs, ...lean, ...files], { encoding: 'utf8', maxBuffer: 2 ** 26 });
  const module = { exports: {} };
  const run = compileFunction(code, ['require', 'module', 'exports']) as (...args: readonly unknown[]) => void;
  run(createRequire(import.meta.url), module, module.exports);
  return module.exports;
}

/** A message of protobufjs, reflected or static. */
interface PbjsType {
  decode(bytes: Uint8Array): unknown;
  encode(message: never): { finish(): Uint8Array };
}
const pbjs = (type: PbjsType): Codec => ({ decode: (bytes) => type.decode(bytes), encode: (message) => type.encode(message).finish() });

const reflected = protobuf.Root.fromDescriptor(descriptors);
const generated = staticRoot();
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
const ours: Readonly<Record<string, PbjsType>> = {
  'spire.api.server.entry.v1.SyncAuthorizedEntriesResponse': SyncAuthorizedEntriesResponse,
  X509SVIDResponse,
};

function known<T>(found: T | undefined, what: string): T {
  if (found === undefined) throw new Error(`${what} is not there`);
  return found;
}

const CODECS: Readonly<Record<string, (type: string) => Codec>> = {
  'ts-proto (ours)': (type) => pbjs(known(ours[type], type)),
  'protobufjs, static': (type) =>
    pbjs(type.split('.').reduce<unknown>((at, name) => (at as Record<string, unknown>)[name], generated) as PbjsType),
  'protobufjs, reflection': (type) => pbjs(reflected.lookupType(type)),
  'protobuf-es': (type) => {
    const schema = known(registry.getMessage(type), type);
    return { decode: (bytes) => fromBinary(schema, bytes), encode: (message) => toBinary(schema, message) };
  },
};

/** Microseconds of CPU for one run: the best of several rounds, since a neighbour can only slow one down. */
function measure(times: number, run: () => unknown): number {
  for (let i = 0; i < times; i++) run();
  const rounds = Array.from({ length: ROUNDS }, () => {
    const from = process.cpuUsage();
    for (let i = 0; i < times; i++) run();
    const { user, system } = process.cpuUsage(from);
    return (user + system) / times;
  });
  return Math.min(...rounds);
}

for (const { what, type, bytes, times } of MESSAGES) {
  console.log(`${what}, ${bytes.length} bytes`);
  for (const [name, codecOf] of Object.entries(CODECS)) {
    const codec = codecOf(type);
    const message = codec.decode(bytes) as never;
    if (!bytes.equals(codec.encode(message))) throw new Error(`${name}: what it encodes is not what it decoded`);
    const encode = measure(times, () => codec.encode(message));
    const decode = measure(times, () => codec.decode(bytes));
    console.log(`  ${name.padEnd(24)} encode ${encode.toFixed(1).padStart(9)} µs   decode ${decode.toFixed(1).padStart(9)} µs`);
  }
}
