/** A set of three files that bear a mark in each line: whole or torn, of one set or of two, is seen at a glance. */
import type { FileContent, Place } from '../../../proxy/helper/files.ts';

const file = (name: string, mark: string, secret: boolean): FileContent => ({
  name,
  data: Buffer.from(`${mark} ${name}\n`.repeat(500)),
  mode: secret ? 0o600 : 0o644,
  secret,
});

export const markedFiles = (mark: string): readonly FileContent[] => [
  file('svid.pem', mark, false),
  file('svid_bundle.pem', mark, false),
  file('svid_key.pem', mark, true),
];

export const placeOf = (directory: string, atomic: Place['atomic']): Place => ({
  directory,
  name: 'x509',
  atomic,
  ownership: { uid: undefined, gid: undefined },
});
