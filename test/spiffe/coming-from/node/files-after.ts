import { memberOf, X509FileSource } from '../../../../spiffe/index.ts';
import { createHttpsServer } from '../../../../spiffe/tls/https.ts';

export async function serve(directory: string, signal: AbortSignal) {
  const source = new X509FileSource({ directory });
  await source.ready(signal);
  return { source, server: createHttpsServer({ source, authorize: memberOf('example.org') }, (_, res) => res.end('hello')) };
}
