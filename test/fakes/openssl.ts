/** openssl's verdict on a chain: a second hand that is not ours. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatPem } from '../../spiffe/x509/pem.ts';

/**
 * @param chainDer leaf, then what was sent with it
 * @param options more of `openssl verify`
 * @returns 'OK', or openssl's own words
 */
export function opensslVerdict(
  chainDer: readonly Buffer[],
  rootsDer: readonly Buffer[],
  atMs: number,
  options: readonly string[] = [],
): string {
  const folder = mkdtempSync(join(tmpdir(), 'openssl-'));
  const write = (name: string, ders: readonly Buffer[]) => {
    const path = join(folder, name);
    writeFileSync(path, ders.map((der) => formatPem('CERTIFICATE', der)).join(''));
    return path;
  };
  const [leaf, ...between] = chainDer;
  const args = ['verify', '-x509_strict', ...options, '-attime', String(Math.floor(atMs / 1000)), '-CAfile', write('roots.pem', rootsDer)];
  if (between.length > 0) args.push('-untrusted', write('between.pem', between));
  try {
    execFileSync('openssl', [...args, write('leaf.pem', leaf ? [leaf] : [])], { stdio: 'pipe' });
    return 'OK';
  } catch (error) {
    return String((error as { stderr?: Buffer }).stderr);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
