/** The first trust of an agent: the authorities by which it knows the server before it has talked to it. */
import { MAX_BUNDLE_BYTES } from '../spiffe/jwt/jwt-bundle.ts';
import { X509Bundle } from '../spiffe/x509/x509-bundle.ts';
import { readFile } from 'node:fs/promises';
import { type CoreCode, fail } from '../core/errors.ts';
import { Bundle } from '../spiffe/bundle/bundle.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { AgentSettings } from './settings.ts';

/**
 * By `trust_bundle_path` or `trust_bundle_url`; undefined with `insecure_bootstrap`.
 * Throws SETTINGS_INVALID for a file, and UNAVAILABLE for a page, that is not there, too large, or no bundle with an authority in it.
 */
export async function bootstrapBundle(
  settings: Pick<
    AgentSettings['agent'],
    'trust_domain' | 'trust_bundle_path' | 'trust_bundle_url' | 'trust_bundle_format' | 'insecure_bootstrap'
  >,
  signal: AbortSignal,
): Promise<readonly Certificate[] | undefined> {
  const { trust_domain, trust_bundle_path: path, trust_bundle_url: url, trust_bundle_format: format } = settings;
  if (path !== undefined) {
    const bytes = await readFile(path).catch((cause: unknown) => {
      throw fail('SETTINGS_INVALID', `could not parse trust bundle: ${path}: ${(cause as Error).message}`, { cause });
    });
    return parse(bytes, format, trust_domain, path, 'SETTINGS_INVALID');
  }
  if (url !== undefined) return parse(await download(url, signal), format, trust_domain, url, 'UNAVAILABLE');
  return undefined;
}

function parse(bytes: Buffer, format: 'pem' | 'spiffe', trustDomain: TrustDomain, source: string, code: CoreCode): readonly Certificate[] {
  try {
    if (bytes.length > MAX_BUNDLE_BYTES) throw new Error(`larger than ${MAX_BUNDLE_BYTES} bytes`);
    const { authorities } = format === 'pem' ? X509Bundle.fromPem(trustDomain, bytes) : Bundle.fromJson(trustDomain, bytes).x509;
    if (authorities.length === 0) throw new Error('no X.509 authority in it');
    return authorities;
  } catch (cause) {
    throw fail(code, `could not parse trust bundle: ${source}: ${(cause as Error).message}`, { cause });
  }
}

const DOWNLOAD_MS = 30_000;

/** By the web's own roots. Redirects are not followed: whoever is redirected to was not named by the operator. */
async function download(url: string, signal: AbortSignal): Promise<Buffer> {
  // only those who need it wait for it to load
  const { get } = await import('node:https');
  const either = AbortSignal.any([signal, AbortSignal.timeout(DOWNLOAD_MS)]);
  return await new Promise((resolve, reject) => {
    const refuse = (why: string, cause?: unknown) =>
      reject(fail('UNAVAILABLE', `could not download trust bundle: ${url}: ${why}`, { cause }));
    const request = get(url, { signal: either, minVersion: 'TLSv1.2' }, (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      if (response.statusCode !== 200) {
        response.destroy();
        return refuse(`status ${response.statusCode}`);
      }
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        size += chunk.length;
        if (size <= MAX_BUNDLE_BYTES) return;
        response.destroy();
        refuse(`larger than ${MAX_BUNDLE_BYTES} bytes`);
      });
      response.on('end', () => resolve(Buffer.concat(chunks)));
      response.on('error', (error) => refuse(error.message, error));
      return undefined;
    });
    request.on('error', (error) => (signal.aborted ? reject(signal.reason) : refuse(error.message, error)));
  });
}
