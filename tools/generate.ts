/** `npm run generate`: makes proto/gen from proto/**.proto. Give a folder to write there instead (the freshness test does). */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';

const root = resolve(import.meta.dirname, '..');
const bin = join(root, 'node_modules', '.bin');
const out = resolve(process.argv[2] ?? join(root, 'proto', 'gen'));
const env = { ...process.env, PATH: `${bin}:${process.env['PATH'] ?? ''}` };
const buf = (...args: string[]) =>
  execFileSync(join(bin, 'buf'), args, {
    cwd: join(root, 'proto'),
    env,
    stdio: ['ignore', 'inherit', 'inherit'],
  });

rmSync(out, { recursive: true, force: true });
const template = JSON.stringify({
  version: 'v2',
  plugins: [
    {
      local: 'protoc-gen-ts_proto',
      out,
      opt: readFileSync(join(root, 'proto', 'ts-proto.options'), 'utf8')
        .trim()
        .split('\n'),
    },
  ],
});
buf('generate', '--template', template, '--include-imports', '--include-wkt');

/**
 * ts-proto's decoders end quietly at an end-group tag or at a tag 0, go on where a nested message ran over its end, write U+FFFD for bytes
 * that are no UTF-8, cut tags to 32 bits (and so take one field for another), and let a group end as another one. What is malformed is refused:
 * each of these is made to throw.
 */
const STRICT: readonly (readonly [lenient: string, strict: string])[] = [
  [
    'if ((tag & 7) === 4 || tag === 0) {\n          break;\n        }',
    'if ((tag & 7) === 4 || tag < 8) {\n          throw new globalThis.Error("malformed message: illegal tag");\n        }',
  ],
  [
    '      return message;\n    } finally {\n      (reader as any).__tsProtoDecodeDepth',
    '      if (reader.pos !== end) {\n        throw new globalThis.Error("malformed message: a field runs over its end");\n      }\n      return message;\n    } finally {\n      (reader as any).__tsProtoDecodeDepth',
  ],
  ['reader.string()', 'reader.string(true)'],
  [
    'const tag = reader.uint32();\n',
    'const at = reader.pos;\n        const tag = reader.uint32();\n        if (reader.pos - at > 4 && (reader as any).buf[at + 4] > 15) {\n          throw new globalThis.Error("malformed message: a tag of more than 32 bits");\n        }\n',
  ],
  ['reader.skip(tag & 7);', 'reader.skip(tag & 7, tag >>> 3);'],
];
for (const file of readdirSync(out, { recursive: true, encoding: 'utf8' })) {
  if (!file.endsWith('.ts')) continue;
  const made = readFileSync(join(out, file), 'utf8');
  const strict = STRICT.reduce((code, [lenient, wanted]) => code.replaceAll(lenient, wanted), made)
    // numbers that are packed: the last one must not run over their end
    .replaceAll(
      /( *)while \(reader\.pos < end2\) \{\n[^}]*\}\n/g,
      (loop, indent: string) =>
        `${loop}${indent}if (reader.pos !== end2) {\n${indent}  throw new globalThis.Error("malformed message: a field runs over its end");\n${indent}}\n`,
    )
    // a message that comes twice is to be merged, which these decoders do not do: nobody writes that, so it is refused
    .replaceAll(
      /( *)message\.(\w+) = (?:\{\s+\$case: "\w+",\s+\w+: )?\w+\.decode\(reader, reader\.uint32\(\)\)(?:,?\s+\})?;\n/g,
      (read, indent: string, field: string) =>
        `${indent}if (message.${field} !== undefined) {\n${indent}  throw new globalThis.Error("malformed message: a field twice");\n${indent}}\n${read}`,
    );
  const decoders = made.split('const end = length === undefined').length - 1;
  const packed = made.split('while (reader.pos < end2)').length - 1;
  const ends = strict.split('malformed message: a field runs over its end').length - 1 - packed;
  const tags = strict.split('malformed message: illegal tag').length - 1;
  const long = strict.split('malformed message: a tag of more than 32 bits').length - 1;
  const groups = strict.split('reader.skip(tag & 7, tag >>> 3)').length - 1;
  if (ends !== decoders || tags !== decoders || long !== decoders || groups !== decoders)
    throw new Error(`${file}: ${decoders} decoders, of which ${tags}, ${ends}, ${long} and ${groups} were made strict`);
  writeFileSync(join(out, file), strict);
}

const scratch = mkdtempSync(join(tmpdir(), 'warifu-generate-'));
try {
  const image = join(scratch, 'descriptors.binpb');
  buf('build', '--exclude-source-info', '-o', image);
  const packed = brotliCompressSync(readFileSync(image), {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11 },
  }).toString('base64');
  const lines = packed.match(/.{1,120}/g) ?? [];
  writeFileSync(
    join(out, 'descriptors.ts'),
    `// Made by tools/generate.ts: the FileDescriptorSet of every proto, brotli over protobuf, in base64. For reflection and for printing JSON.\nexport const DESCRIPTORS = [\n${lines.map((line) => `  '${line}',\n`).join('')}].join('');\n`,
  );
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
