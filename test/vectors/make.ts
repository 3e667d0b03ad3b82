/** Writes the files of vectors from their recipes, and docs/differential.md from the table of disagreements: `node test/vectors/make.ts`, by hand; then `npm run check` says whether the format is right. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { NOW_MS } from '../fakes/ca.ts';
import { differentialPage } from '../interop/disagreements.ts';
import { bundleFile } from './recipes/bundle.ts';
import { endpointFile } from './recipes/endpoint.ts';
import { matchFile, spiffeIdFile, trustDomainFile } from './recipes/ids.ts';
import { jwtFile } from './recipes/jwt.ts';
import { x509ParseFile, x509ProfileFile, x509VerifyFile } from './recipes/x509.ts';
import { FAMILIES, type Family, type File, fileOf } from './row.ts';

/** The same each time that they are run. */
export const RECIPES: { readonly [F in Family]: () => File<F> } = {
  'spiffe-id': spiffeIdFile,
  'trust-domain': trustDomainFile,
  match: matchFile,
  'x509-svid-parse': x509ParseFile,
  'x509-svid-verify': x509VerifyFile,
  'x509-profile': x509ProfileFile,
  'jwt-svid': () => jwtFile(NOW_MS),
  bundle: bundleFile,
  'endpoint-address': endpointFile,
};

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  for (const family of FAMILIES) writeFileSync(fileOf(family), `${JSON.stringify(RECIPES[family](), null, 2)}\n`);
  writeFileSync(join(import.meta.dirname, '..', '..', 'docs', 'differential.md'), differentialPage());
}
