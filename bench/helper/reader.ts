/** Reads what the helper writes, again and again until its input ends, and counts reads that are not whole. */
import { readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { X509Svid } from '../../spiffe/x509/x509-svid.ts';
import { certificatesFromPem } from '../../spiffe/x509/certificate.ts';

const [pem = '', combined = '', folder = ''] = process.argv.slice(2);
let reads = 0;
let torn = 0;
let over = false;
process.stdin.on('end', () => (over = true)).resume();

/** Through one look at the link: the files beside each other are of one writing. */
const beside = (file: string, name: string) => join(dirname(file), name);
const pinned = () => {
  const svid = realpathSync(join(pem, 'svid.pem'));
  X509Svid.fromPem(readFileSync(svid), readFileSync(beside(svid, 'svid_key.pem')));
  if (certificatesFromPem(readFileSync(beside(svid, 'svid_bundle.pem'))).length === 0) throw new Error('no authority');
};
const looks: readonly (() => void)[] = [
  () => {
    try {
      pinned();
    } catch (error) {
      // two renewals between the look at the link and the reading: the generation of before is kept, the one before that is not
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      pinned();
    }
  },
  // by path, as programs do that know nothing of links: each file is there, and whole for itself
  () => void X509Svid.fromPem(readFileSync(join(combined, 'svid_combined.pem'))),
  () => void X509Svid.fromPem(readFileSync(join(folder, 'credential-bundle.pem'))),
  () => {
    if (certificatesFromPem(readFileSync(join(folder, 'example.org.trust-bundle.pem'))).length === 0) throw new Error('no authority');
  },
];

process.stdout.write('begun\n');
while (!over) {
  for (const look of looks) {
    reads++;
    try {
      look();
    } catch (error) {
      torn++;
      process.stderr.write(`torn: ${(error as Error).message}\n`);
    }
  }
  await new Promise((done) => setImmediate(done));
}
process.stdout.write(`${JSON.stringify({ reads, torn })}\n`);
