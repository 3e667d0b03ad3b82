/** A log that counts its lines per level: tests ask whether somebody was warned, never in which words. */
import type { Fields, Log } from '../../core/log.ts';

export class CountingLog implements Log {
  errors = 0;
  warnings = 0;

  error(_message: string, _fields?: Fields): void {
    this.errors++;
  }
  warn(_message: string, _fields?: Fields): void {
    this.warnings++;
  }
  info(): void {}
  debug(): void {}
  trace(): void {}
  with(): Log {
    return this;
  }
}
