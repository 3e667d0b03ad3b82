/** The generated decoders of every message that the services take or give: what they read, protobufjs reads alike. The first octet says which message. */
import { brotliDecompressSync } from 'node:zlib';
import protobuf from 'protobufjs';
import 'protobufjs/ext/descriptor.js';
import { DESCRIPTORS } from '../../../proto/gen/descriptors.ts';
import { HealthDefinition } from '../../../proto/gen/grpc/health/v1/health.ts';
import { ServerReflectionDefinition } from '../../../proto/gen/grpc/reflection/v1/reflection.ts';
import { DebugDefinition as AgentDebugDefinition } from '../../../proto/gen/spire/api/agent/debug/v1/debug.ts';
import { AgentDefinition } from '../../../proto/gen/spire/api/server/agent/v1/agent.ts';
import { BundleDefinition } from '../../../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import { DebugDefinition } from '../../../proto/gen/spire/api/server/debug/v1/debug.ts';
import { EntryDefinition } from '../../../proto/gen/spire/api/server/entry/v1/entry.ts';
import { LoggerDefinition } from '../../../proto/gen/spire/api/server/logger/v1/logger.ts';
import { SVIDDefinition } from '../../../proto/gen/spire/api/server/svid/v1/svid.ts';
import { SpiffeWorkloadAPIDefinition } from '../../../proto/gen/spiffe/workload/workload.ts';
import { ExplainDefinition } from '../../../proto/gen/warifu/api/agent/explain/v1/explain.ts';
import { BackupDefinition } from '../../../proto/gen/warifu/api/server/backup/v1/backup.ts';
import { PushDefinition } from '../../../proto/gen/warifu/api/server/push/v1/push.ts';
import { about, type Target, wrong } from '../fuzzer.ts';
import { Random } from '../random.ts';
import { wireMutation } from '../wire.ts';

interface Codec {
  decode(input: Uint8Array): unknown;
  encode(message: never): { finish(): Uint8Array };
}

const SERVICES = [
  SpiffeWorkloadAPIDefinition,
  AgentDefinition,
  BundleDefinition,
  EntryDefinition,
  SVIDDefinition,
  PushDefinition,
  BackupDefinition,
  ExplainDefinition,
  DebugDefinition,
  AgentDebugDefinition,
  LoggerDefinition,
  HealthDefinition,
  ServerReflectionDefinition,
];

/** Requests first: those come from strangers. */
const MESSAGES = new Map<Codec, string>();
for (const side of ['request', 'response'] as const) {
  for (const { fullName, methods } of SERVICES) {
    for (const { name, requestType, responseType } of Object.values(methods)) {
      const codec = (side === 'request' ? requestType : responseType) as unknown as Codec;
      // in these a member of a map that has no value is left out; nobody here reads them
      if (side === 'response' && (name === 'ValidateJWTSVID' || fullName === HealthDefinition.fullName)) continue;
      if (!MESSAGES.has(codec)) MESSAGES.set(codec, `${side} ${fullName} ${name}`);
    }
  }
}

export default function proto(): Target {
  const root = (protobuf.Root as unknown as { fromDescriptor(bytes: Uint8Array): protobuf.Root }).fromDescriptor(
    brotliDecompressSync(Buffer.from(DESCRIPTORS, 'base64')),
  );
  root.resolveAll();
  const codecs = [...MESSAGES].map(([codec, where]) => {
    const [side = '', service = '', method = ''] = where.split(' ');
    const { resolvedRequestType, resolvedResponseType } = root.lookupService(service).methods[method] as protobuf.Method;
    return { codec, theirs: (side === 'request' ? resolvedRequestType : resolvedResponseType) as protobuf.Type };
  });
  const seeds = codecs.flatMap(({ theirs }, i) => [
    Buffer.of(i),
    ...[1, 2, 3].map((seed) =>
      Buffer.concat([Buffer.of(i), theirs.encode(theirs.fromObject(sample(new Random(seed), theirs, 0))).finish()]),
    ),
  ]);
  return {
    seeds,
    words: [
      'spiffe://example.org',
      'example.org',
      '/web',
      'é',
      Buffer.from('ff', 'hex'),
      Buffer.from('a30604a406', 'hex'),
      Buffer.from('80808080808080808001', 'hex'),
    ],
    mutations: [wireMutation(1)],
    run(input) {
      const chosen = codecs[(input[0] ?? 0) % codecs.length];
      if (!chosen) return 'nothing';
      const { codec, theirs } = chosen;
      const bytes = input.subarray(1);
      let message: unknown;
      try {
        message = codec.decode(bytes);
      } catch (error) {
        if (isRefusal(error)) return `${theirs.name} ${(error as Error).message.replace(/\d+/g, '#').slice(0, 60)}`;
        throw error;
      }
      const written = codec.encode(message as never).finish();
      const text = (from: Uint8Array) =>
        JSON.stringify(theirs.toObject(theirs.decode(from), { longs: String, bytes: String, defaults: true, oneofs: true }));
      let seen: string;
      try {
        seen = text(bytes);
      } catch (error) {
        // the library cuts lengths to 32 bits: what is read is what such a length would be
        if ((error as Error).message === 'invalid length encoding') return `${theirs.name} a length of more than 32 bits`;
        // protobufjs takes the tag for the number of the field where a message has no fields
        if ((error as Error).message === 'invalid end group tag') return `${theirs.name} with a group`;
        throw wrong(`protobufjs does not read what we read: ${(error as Error).message.slice(0, 80)}`, theirs.fullName);
      }
      const ours = text(written);
      if (ours !== seen) throw wrong('protobufjs reads something else', theirs.fullName, ours, seen);
      if (!Buffer.from(codec.encode(codec.decode(written) as never).finish()).equals(written))
        throw wrong('written twice it is something else');
      return `${theirs.name} ${about(bytes.length)} ${about(Object.keys(message as object).filter((key) => hasValue((message as Record<string, unknown>)[key])).length)}`;
    },
  };
}

function hasValue(value: unknown): boolean {
  return value !== undefined && value !== '' && value !== 0 && value !== false && !(Array.isArray(value) && value.length === 0);
}

/** How the decoders refuse; gRPC turns whatever they throw into a status. A stack that ran out is none of them. */
function isRefusal(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error instanceof RangeError) return !error.message.includes('call stack') && !error.message.includes('allocation');
  return error.constructor === Error || (error as NodeJS.ErrnoException).code === 'ERR_ENCODING_INVALID_ENCODED_DATA';
}

/** A message with something in each of its fields. */
function sample(random: Random, type: protobuf.Type, depth: number): Record<string, unknown> {
  const made: Record<string, unknown> = {};
  for (const field of type.fieldsArray) {
    if (random.oneIn(4) || (field.partOf && random.oneIn(2))) continue;
    const value = () => {
      const resolved = field.resolvedType;
      if (resolved instanceof protobuf.Type) return depth > 3 ? {} : sample(random, resolved, depth + 1);
      if (resolved instanceof protobuf.Enum) return random.pick(Object.values(resolved.values));
      if (field.type === 'string') return random.pick(['', 'é', 'example.org', '/web', 'x'.repeat(200)]);
      if (field.type === 'bytes') return random.bytes(random.int(20)).toString('base64');
      if (field.type === 'bool') return random.oneIn(2);
      return random.pick([0, 1, 300, 2 ** 31 - 1]);
    };
    if (field instanceof protobuf.MapField) made[field.name] = { a: value() };
    else made[field.name] = field.repeated ? Array.from({ length: random.int(3) }, value) : value();
  }
  return made;
}
