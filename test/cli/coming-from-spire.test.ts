/** docs/coming-from-spire.md tells each difference from SPIRE's answers that the comparison beside SPIRE's programs lets pass, in its words. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { INTENDED } from '../spire/intended.ts';

const page = readFileSync(resolve(import.meta.dirname, '../../docs/coming-from-spire.md'), 'utf8');

describe('the page tells of', () => {
  for (const [reason, { why }] of Object.entries(INTENDED)) {
    test(reason, () => {
      expect(page).toContain(why);
    });
  }
});
