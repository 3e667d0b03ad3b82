/** gRPC server reflection over a real socket. What it says of the Workload API is read by protobufjs, which is not ours, and compared with the published file. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import protobuf from 'protobufjs';
import descriptor from 'protobufjs/ext/descriptor.js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { silent } from '../../core/log.ts';
import { reflection } from '../../core/reflection.ts';
import { createRpcServer, type RpcServer, type Service, service } from '../../core/rpc.ts';
import { HealthDefinition } from '../../proto/gen/grpc/health/v1/health.ts';
import {
  type ServerReflectionRequest,
  type ServerReflectionResponse,
  ServerReflectionDefinition as V1,
} from '../../proto/gen/grpc/reflection/v1/reflection.ts';
import { ServerReflectionDefinition as V1Alpha } from '../../proto/gen/grpc/reflection/v1alpha/reflection.ts';
import { SpiffeWorkloadAPIDefinition } from '../../proto/gen/spiffe/workload/workload.ts';
import { openChannel } from '../../spiffe/rpc/channel.ts';
import { type Channel } from '../../spiffe/rpc/calls.ts';

const directory = mkdtempSync(join(tmpdir(), 'reflection-'));
const path = join(directory, 'api.sock');
const services: readonly Service[] = [service(SpiffeWorkloadAPIDefinition, {}), service(HealthDefinition, {})];
let rpc: RpcServer;
let listener: Server;
let channel: Channel;

beforeAll(async () => {
  rpc = createRpcServer({ log: silent, services: [...services, ...reflection(services)] });
  listener = createServer((socket) => rpc.accept(socket, { kind: 'process', pid: 1, uid: 0, gid: 0, pidfd: -1, connection: socket }));
  await new Promise<void>((done) => listener.listen(path, done));
  channel = openChannel({ target: `unix://${path}` });
});
afterAll(async () => {
  channel.close();
  rpc.close();
  await new Promise((done) => listener.close(done));
  rmSync(directory, { recursive: true });
});

type Question = NonNullable<ServerReflectionRequest['messageRequest']>;

/** All questions on one stream, as clients do it. */
async function ask(
  definition: typeof V1 | typeof V1Alpha,
  ...questions: readonly (Question | undefined)[]
): Promise<ServerReflectionResponse[]> {
  async function* requests(): AsyncGenerator<ServerReflectionRequest> {
    for (const messageRequest of questions) yield { host: 'here', messageRequest };
  }
  const answers: ServerReflectionResponse[] = [];
  for await (const answer of channel.service(definition).serverReflectionInfo(requests())) answers.push(answer);
  return answers;
}

const symbol = (fileContainingSymbol: string): Question => ({ $case: 'fileContainingSymbol', fileContainingSymbol });
const file = (fileByFilename: string): Question => ({ $case: 'fileByFilename', fileByFilename });

/** The files of an answer, each under its name; empty for an error. */
function filesOf(answer: ServerReflectionResponse | undefined): Map<string, Buffer> {
  const { messageResponse } = answer ?? {};
  if (messageResponse?.$case !== 'fileDescriptorResponse') return new Map();
  return new Map(
    messageResponse.fileDescriptorResponse.fileDescriptorProto.map((bytes) => [
      (descriptor.FileDescriptorProto.decode(bytes).toJSON() as { name: string }).name,
      bytes,
    ]),
  );
}

function errorOf(answer: ServerReflectionResponse | undefined): number | undefined {
  const { messageResponse } = answer ?? {};
  return messageResponse?.$case === 'errorResponse' ? messageResponse.errorResponse.errorCode : undefined;
}

/** Every message with its fields and every RPC with its types, as text. */
function facts(root: protobuf.Root): string[] {
  const found: string[] = [];
  const name = (type: string) => type.replace(/^\./, '');
  const visit = (at: protobuf.NamespaceBase) => {
    for (const one of at.nestedArray) {
      const full = name(one.fullName);
      if (full.startsWith('google')) continue;
      if (one instanceof protobuf.Service) {
        for (const rpcMethod of one.methodsArray) {
          const { requestStream, requestType, responseStream, responseType } = rpcMethod;
          const stream = (is: boolean | undefined) => (is ? 'stream ' : '');
          found.push(
            `rpc ${full}/${rpcMethod.name}: ${stream(requestStream)}${name(requestType)} -> ${stream(responseStream)}${name(responseType)}`,
          );
        }
      } else if (one instanceof protobuf.Type && !one.options?.['mapEntry'] && !one.options?.['map_entry']) {
        found.push(`message ${full}`);
        for (const field of one.fieldsArray) found.push(`${full}.${field.name} = ${field.id}`);
      }
      if (one instanceof protobuf.Namespace) visit(one);
    }
  };
  visit(root);
  return found.sort();
}

for (const [version, definition] of [
  ['v1', V1],
  ['v1alpha', V1Alpha],
] as const) {
  describe(`reflection ${version}`, () => {
    test('lists exactly the services that there are, the Workload API among them (WE-30, WE-31)', async () => {
      const [answer] = await ask(definition, { $case: 'listServices', listServices: '*' });
      expect(answer?.messageResponse).toEqual({
        $case: 'listServicesResponse',
        listServicesResponse: {
          service: [
            'SpiffeWorkloadAPI',
            'grpc.health.v1.Health',
            'grpc.reflection.v1.ServerReflection',
            'grpc.reflection.v1alpha.ServerReflection',
          ].map((name) => ({ name })),
        },
      });
      expect(answer).toMatchObject({ validHost: 'here', originalRequest: { host: 'here' } });
    });

    test('tells the Workload API as it is published: the same services, methods, messages, fields and numbers (WAPI-4, WE-28)', async () => {
      const [answer] = await ask(definition, symbol('SpiffeWorkloadAPI'));
      const set = new protobuf.Writer();
      for (const bytes of filesOf(answer).values()) set.uint32(10).bytes(bytes);
      const told = protobuf.Root.fromDescriptor(set.finish());
      const source = readFileSync(join(import.meta.dirname, '../../proto/spiffe/workload/workload.proto'), 'utf8');
      const published = protobuf.parse(source).root;
      expect(facts(told)).toEqual(facts(published));
      expect(facts(told).filter((fact) => fact.startsWith('rpc'))).toHaveLength(7);
    });

    test('gives a file with all that it imports, whatever it is asked by', async () => {
      const answers = await ask(
        definition,
        symbol('SpiffeWorkloadAPI'),
        symbol('SpiffeWorkloadAPI.FetchX509SVID'),
        symbol('X509SVID'),
        symbol('X509SVID.hint'),
        file('spiffe/workload/workload.proto'),
      );
      for (const answer of answers) {
        expect([...filesOf(answer).keys()]).toEqual(['spiffe/workload/workload.proto', 'google/protobuf/struct.proto']);
      }
      const [own] = await ask(definition, symbol(definition.fullName));
      expect(filesOf(own).size).toBe(1);
    });

    test('says of what is not there that it is not there, and goes on', async () => {
      const answers = await ask(
        definition,
        symbol('spiffe.workload.SpiffeWorkloadAPI'),
        symbol(''),
        symbol('.SpiffeWorkloadAPI'),
        file('workload.proto'),
        file(''),
        { $case: 'fileContainingExtension', fileContainingExtension: { containingType: 'X509SVID', extensionNumber: 1 } },
        { $case: 'allExtensionNumbersOfType', allExtensionNumbersOfType: 'X509SVID' },
        undefined,
        symbol('SpiffeWorkloadAPI'),
      );
      expect(answers.map(errorOf)).toEqual([5, 5, 5, 5, 5, 5, 5, 12, undefined]);
    });

    test('speaks of no service that is not there', async () => {
      const answers = await ask(definition, symbol('spire.api.server.entry.v1.Entry'), file('spire/api/server/entry/v1/entry.proto'));
      expect(answers.map(errorOf)).toEqual([5, 5]);
    });
  });
}
