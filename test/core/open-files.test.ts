/** What the limit of open files leaves room for. */
import { expect, test } from 'vitest';
import { connectionsWithin, openFilesLimit } from '../../core/open-files.ts';

const wanted = { connections: 4_096, each: 2 };
const asked = { ...wanted, setting: 'limits.max_connections' };

test('what fits is what was wanted, or less where nobody asked for it', () => {
  expect(connectionsWithin(1_048_576, wanted)).toBe(4_096);
  expect(connectionsWithin(Number.POSITIVE_INFINITY, asked)).toBe(4_096);
  expect(connectionsWithin(1_024, wanted)).toBe(384);
  expect(connectionsWithin(1_024, { connections: 4_096, each: 1 })).toBe(768);
});

test('a limit that is too low for what was asked for, or for anything, is said', () => {
  expect(() => connectionsWithin(1_024, asked)).toThrow(expect.objectContaining({ code: 'SETTINGS_INVALID' }));
  expect(() => connectionsWithin(256, wanted)).toThrow(expect.objectContaining({ code: 'SETTINGS_INVALID' }));
});

test('the limit is that of this process', () => {
  expect(openFilesLimit()).toBeGreaterThan(255);
});
