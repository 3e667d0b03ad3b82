/** gRPC server reflection, v1 and v1alpha, over the descriptors of exactly those services that a server has (WE-31, WAPI-4). */
import { brotliDecompressSync } from 'node:zlib';
import { DESCRIPTORS } from '../proto/gen/descriptors.ts';
import {
  ServerReflectionDefinition as V1,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from '../proto/gen/grpc/reflection/v1/reflection.ts';
import { ServerReflectionDefinition as V1Alpha } from '../proto/gen/grpc/reflection/v1alpha/reflection.ts';
import { type Service, service } from './rpc.ts';

const NOT_FOUND = 5;
const UNIMPLEMENTED = 12;

/** A file of the descriptor set: its bytes, and what it defines and needs. */
interface File {
  readonly name: string;
  readonly bytes: Buffer;
  readonly needs: readonly string[];
  readonly symbols: readonly string[];
}

/** @param services what the server has besides; reflection speaks of these and of itself. */
export function reflection(services: readonly Service[]): readonly Service[] {
  const names = [...services.map((one) => one.definition.fullName), V1.fullName, V1Alpha.fullName].sort();
  let files: ReadonlyMap<string, File> | undefined;
  const answer = (request: ServerReflectionRequest): ServerReflectionResponse => {
    files ??= filesOf(names, readFiles());
    return { validHost: request.host, originalRequest: request, messageResponse: messageFor(request, files, names) };
  };
  async function* serverReflectionInfo(requests: AsyncIterable<ServerReflectionRequest>): AsyncGenerator<ServerReflectionResponse> {
    for await (const request of requests) yield answer(request);
  }
  return [service(V1, { serverReflectionInfo }), service(V1Alpha, { serverReflectionInfo })];
}

function messageFor(
  { messageRequest }: ServerReflectionRequest,
  files: ReadonlyMap<string, File>,
  names: readonly string[],
): ServerReflectionResponse['messageResponse'] {
  const error = (errorCode: number, errorMessage: string) => ({
    $case: 'errorResponse' as const,
    errorResponse: { errorCode, errorMessage },
  });
  const whole = (file: File | undefined, what: string) =>
    file
      ? {
          $case: 'fileDescriptorResponse' as const,
          fileDescriptorResponse: { fileDescriptorProto: withNeeds(file, files).map((one) => one.bytes) },
        }
      : error(NOT_FOUND, `${what} is not known here`);
  switch (messageRequest?.$case) {
    case 'listServices':
      return { $case: 'listServicesResponse', listServicesResponse: { service: names.map((name) => ({ name })) } };
    case 'fileByFilename':
      return whole(files.get(messageRequest.fileByFilename), messageRequest.fileByFilename);
    case 'fileContainingSymbol': {
      const symbol = messageRequest.fileContainingSymbol;
      // a method or a field belongs to what stands before its last dot
      const holds = (file: File) => file.symbols.includes(symbol) || file.symbols.includes(symbol.slice(0, symbol.lastIndexOf('.')));
      return whole([...files.values()].find(holds), symbol);
    }
    case 'fileContainingExtension':
    case 'allExtensionNumbersOfType':
      return error(NOT_FOUND, 'there are no extensions here');
    case undefined:
      return error(UNIMPLEMENTED, 'no request');
  }
}

/** Of all files those that define these services, and what they import. */
function filesOf(services: readonly string[], all: ReadonlyMap<string, File>): ReadonlyMap<string, File> {
  const defining = [...all.values()].filter((file) => file.symbols.some((symbol) => services.includes(symbol)));
  return new Map(defining.flatMap((file) => withNeeds(file, all)).map((file) => [file.name, file]));
}

/** The file and all that it imports, imports of imports included. */
function withNeeds(file: File, files: ReadonlyMap<string, File>): readonly File[] {
  const all = new Set<File>();
  const add = (one: File | undefined) => {
    if (!one || all.has(one)) return;
    all.add(one);
    for (const name of one.needs) add(files.get(name));
  };
  add(file);
  return [...all];
}

function readFiles(): ReadonlyMap<string, File> {
  const set = brotliDecompressSync(Buffer.from(DESCRIPTORS, 'base64'));
  return new Map(fieldsOf(set, 1).map((bytes) => [textOf(bytes, 1), fileOf(bytes)]));
}

/** FileDescriptorProto: name 1, package 2, dependency 3, message_type 4, enum_type 5, service 6; each of those has its name in field 1. */
function fileOf(bytes: Buffer): File {
  const prefix = textOf(bytes, 2) === '' ? '' : `${textOf(bytes, 2)}.`;
  return {
    name: textOf(bytes, 1),
    bytes,
    needs: fieldsOf(bytes, 3).map(String),
    symbols: [4, 5, 6].flatMap((number) => fieldsOf(bytes, number).map((one) => prefix + textOf(one, 1))),
  };
}

function textOf(bytes: Buffer, number: number): string {
  return String(fieldsOf(bytes, number)[0] ?? '');
}

/** Every length-delimited field of this number. The bytes are our own generator's. */
function fieldsOf(bytes: Buffer, number: number): Buffer[] {
  const found: Buffer[] = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes.readUInt8(at++);
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const [field, wire] = [Math.floor(tag / 8), tag % 8];
    if (wire === 0) varint();
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else {
      const length = varint();
      if (field === number) found.push(bytes.subarray(at, at + length));
      at += length;
    }
  }
  return found;
}
