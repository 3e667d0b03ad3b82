/** An example of docs/federation-client.md. */
import { Bundle } from '../../../../spiffe/bundle/bundle.ts';
import { BundleEndpointSource } from '../../../../spiffe/bundle/endpoint-source.ts';
import { TrustDomain } from '../../../../spiffe/id.ts';
import type { Logger } from '../../../../spiffe/logger.ts';

export async function partners(shopUrl: string, bankUrl: string, bankBundle: string, ca?: string, log?: Logger) {
  const bank = TrustDomain.parse('bank.example');
  const source = new BundleEndpointSource({
    endpoints: [
      { trustDomain: 'shop.example', url: shopUrl, profile: { type: 'https_web', ca } },
      {
        trustDomain: bank,
        url: bankUrl,
        // what the bank gave us by hand, to begin with
        profile: { type: 'https_spiffe', endpointId: 'spiffe://bank.example/spire/server', bundles: Bundle.fromJson(bank, bankBundle) },
      },
    ],
    log,
  });
  await source.ready(AbortSignal.timeout(20_000));
  return source;
}
