/** Our Workload API proto says what go-spiffe's says, word for word (WAPI-4, WAPI-5, WE-28): no method, field or number more or less. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ROOT, runToEnd } from '../e2e/house.ts';

/** The words of a proto without comments and without what only says where generated code goes. */
function words(proto: string): string[] {
  return proto
    .replace(/\/\/.*$/gm, '')
    .replace(/option \w+_package = "[^"]*";/g, '')
    .split(/([{}=;(),<>]|\s+)/)
    .map((word) => word.trim())
    .filter((word) => word !== '');
}

test("workload.proto is the published one, as go-spiffe's module carries it", async () => {
  const found = await runToEnd(['go', 'mod', 'download', '-json', 'github.com/spiffe/go-spiffe/v2'], {
    cwd: join(ROOT, 'test', 'interop', 'go'),
  }).catch((cause: unknown) => Promise.reject(new Error("the interop suite needs Go 1.24 or newer: `go` can't be run", { cause })));
  expect(found.code, `go mod download: ${found.stderr}`).toBe(0);
  const { Dir: module } = JSON.parse(found.stdout) as { Dir: string };
  const published = readFileSync(join(module, 'proto', 'spiffe', 'workload', 'workload.proto'), 'utf8');
  const ours = readFileSync(join(ROOT, 'proto', 'spiffe', 'workload', 'workload.proto'), 'utf8');
  expect(words(ours)).toEqual(words(published));
  // the comparison's own twin: one number more is seen
  expect(words(ours.replace(/= 3;/, '= 4;'))).not.toEqual(words(published));
});
