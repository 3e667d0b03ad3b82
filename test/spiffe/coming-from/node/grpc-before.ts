import { credentials, ServerCredentials } from '@grpc/grpc-js';

export const serverCredentials = (key: Buffer, cert: Buffer, ca: Buffer) =>
  ServerCredentials.createSsl(ca, [{ private_key: key, cert_chain: cert }], true);

export const clientCredentials = (key: Buffer, cert: Buffer, ca: Buffer) =>
  credentials.createSsl(ca, key, cert, { checkServerIdentity: () => undefined });
