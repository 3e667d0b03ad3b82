/** `-output json`: answers of the API as one line of JSON. Loads the descriptors, which only this needs. */
import { brotliDecompressSync } from 'node:zlib';
import { DESCRIPTORS } from '../proto/gen/descriptors.ts';
import { encodeMessage, type MethodDefinition, type Response, type ServiceDefinition } from '../spiffe/rpc/service.ts';
import { parseDescriptors } from './descriptors.ts';
import { toJson, writeJson } from './protojson.ts';
import type { Terminal } from './terminal.ts';

/** One answer: an object. Gives exit code 0. */
export async function printJson<M extends MethodDefinition>(
  terminal: Terminal,
  service: ServiceDefinition,
  method: M,
  answer: Response<M>,
): Promise<number> {
  terminal.out(`${jsonOf(service, method, answer)}\n`);
  return 0;
}

/** Several answers, of several methods: a list. */
export async function printJsonList(terminal: Terminal, ...texts: readonly string[]): Promise<number> {
  terminal.out(`[${texts.join(',')}]\n`);
  return 0;
}

let descriptors: ReturnType<typeof parseDescriptors> | undefined;

export function jsonOf<M extends MethodDefinition>(service: ServiceDefinition, method: M, answer: Response<M>): string {
  descriptors ??= parseDescriptors(brotliDecompressSync(Buffer.from(DESCRIPTORS, 'base64')));
  const type = descriptors.answers.get(`${service.fullName}/${method.name}`) ?? '';
  return writeJson(toJson(descriptors, type, encodeMessage(method.responseType, answer)));
}
