/** Settings in YAML and JSON: a key is set once. */
import { expect, test } from 'vitest';
import { parseSettings } from '../../core/settings-file.ts';

test.each([
  ['yaml', 'a: 1\nb: 2\na: 3\n', 'f:3:1: Map keys must be unique'],
  ['yaml', 'a:\n  b: 1\n  "b": 2\n', 'f:3:3: Map keys must be unique'],
  ['json', '{"a":1,"a":2}', 'f:1:8: Map keys must be unique'],
] as const)('%s %j is refused at the second', async (format, text, message) => {
  await expect(parseSettings(text, 'f', format)).rejects.toThrow(message);
});

test.each([
  ['yaml', 'a: 1\nb: { a: 2 }\nc: { a: 3 }\n'],
  ['json', '{"a":1,"b":{"a":2},"c":{"a":3}}'],
] as const)('(its positive twin: %s %j is read)', async (format, text) => {
  await expect(parseSettings(text, 'f', format)).resolves.toBeDefined();
});
