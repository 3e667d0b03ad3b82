/** `@warifu/spiffe/tls`: sockets, clients and servers of node:tls whose peers have been verified. For outsiders: inside the house the file itself is imported. */
export { connectSpiffe, type Dial, TlsClient, type TlsClientSettings } from './client.ts';
export type { ClientMode, ServerMode } from './mode.ts';
export { createSpiffeServer, type TlsServerSettings } from './server.ts';
export { type Authorize, type TlsPeer, tlsPeer, type WebCertificate } from './tls.ts';
