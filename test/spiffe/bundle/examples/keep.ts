/** An example of docs/federation-client.md. */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { Bundle } from '../../../../spiffe/bundle/bundle.ts';
import type { BundleEndpointSource } from '../../../../spiffe/bundle/endpoint-source.ts';
import { TrustDomain } from '../../../../spiffe/id.ts';

/** For `initial` at the next start. */
export async function kept(folder: string, name: string): Promise<Bundle | undefined> {
  const json = await readFile(`${folder}/${name}.json`).catch(() => undefined);
  return json && Bundle.fromJson(TrustDomain.parse(name), json);
}

/** Until the source is closed. */
export async function keep(source: BundleEndpointSource, folder: string): Promise<void> {
  for await (const bundles of source) {
    for (const bundle of bundles) {
      const file = `${folder}/${bundle.trustDomain}.json`;
      await writeFile(`${file}.new`, bundle.toJson());
      await rename(`${file}.new`, file);
    }
  }
}
