/** The version of the package that we are in. */
import { readFileSync } from 'node:fs';

/** One level up from the sources, two from what was built of them. */
export function version(): string {
  for (const place of ['../package.json', '../../package.json']) {
    try {
      const { name, version: found } = JSON.parse(readFileSync(new URL(place, import.meta.url), 'utf8')) as {
        name?: string;
        version?: string;
      };
      if (name === 'warifu' && found !== undefined) return found;
    } catch {
      // not there: the next place
    }
  }
  return 'unknown';
}
