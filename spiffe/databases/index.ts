/** Databases and brokers: what their drivers take so that both ends are who they should be. */
export { type IoredisOptions, ioredisOptions } from './redis.ts';
export {
  type KafkajsOptions,
  kafkajsOptions,
  kafkaOauthBearer,
  kafkaTokenRefresh,
  type OauthBearerParams,
  type OauthBearerToken,
} from './kafka.ts';
export { type PgOptions, pgOptions } from './postgres.ts';
export {
  type AnchorOptions,
  type MongodbOptions,
  mongodbOptions,
  type Mysql2Options,
  mysql2Options,
  pemOptions,
  type TlsOptions,
  tlsOptions,
  type TlsOptionsSettings,
  type WebTlsOptions,
  webTlsOptions,
  type WebTlsOptionsSettings,
} from './tls-options.ts';
export type { SocketSettings } from './verified-socket.ts';
