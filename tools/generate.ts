/** `npm run generate`: makes proto/gen from proto/**.proto. Give a folder to write there instead (the freshness test does). */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';

const root = resolve(import.meta.dirname, '..');
const bin = join(root, 'node_modules', '.bin');
const out = resolve(process.argv[2] ?? join(root, 'proto', 'gen'));
const env = { ...process.env, PATH: `${bin}:${process.env['PATH'] ?? ''}` };
const buf = (...args: string[]) =>
  execFileSync(join(bin, 'buf'), args, { cwd: join(root, 'proto'), env, stdio: ['ignore', 'inherit', 'inherit'] });

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

const scratch = mkdtempSync(join(tmpdir(), 'warifu-generate-'));
try {
  const image = join(scratch, 'descriptors.binpb');
  buf('build', '--exclude-source-info', '-o', image);
  const packed = brotliCompressSync(readFileSync(image), { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }).toString('base64');
  const lines = packed.match(/.{1,120}/g) ?? [];
  writeFileSync(
    join(out, 'descriptors.ts'),
    `// Made by tools/generate.ts: the FileDescriptorSet of every proto, brotli over protobuf, in base64. For reflection and for printing JSON.\nexport const DESCRIPTORS = [\n${lines.map((line) => `  '${line}',\n`).join('')}].join('');\n`,
  );
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
