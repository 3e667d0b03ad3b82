/** Settings of UpstreamAuthority "disk": SPIRE's three, and ours. */
import { z } from 'zod';

export const diskSettings = z.strictObject({
  /** PEM: the issuing certificate, then its issuers up to but without the root. */
  cert_file_path: z.string().min(1),
  /** PEM: PKCS#8, SEC1 or PKCS#1. */
  key_file_path: z.string().min(1),
  /** PEM: the roots to publish. May be left out only for a self-signed certificate. */
  bundle_file_path: z.string().min(1).optional(),
  /** Signs SVIDs with the intermediate itself: for those that allow no CA below them (`pathlen:0`). */
  sign_directly: z.boolean().default(false),
  insecure_self_signed_root: z.boolean().default(false),
  insecure_key_file_mode: z.boolean().default(false),
});
export type DiskSettings = z.infer<typeof diskSettings>;
