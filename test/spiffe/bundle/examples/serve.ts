/** An example of docs/federation-client.md. */
import { createServer } from 'node:https';
import type { BundleSet } from '../../../../spiffe/bundle/bundle.ts';
import { bundleHandler } from '../../../../spiffe/bundle/endpoint-handler.ts';
import { TrustDomain } from '../../../../spiffe/id.ts';

export function endpoint(site: { cert: string; key: string }, bundles: Pick<BundleSet, 'get'>) {
  return createServer(site, bundleHandler({ trustDomain: TrustDomain.parse('example.org'), bundles }));
}
