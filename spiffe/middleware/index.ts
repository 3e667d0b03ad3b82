/** The middleware for Express, Connect, Fastify, Koa, Hono and plain http. For outsiders. */
export * from './jwt.ts';
export { type ForwardedOptions, requireSpiffeId, type RequireSpiffeIdOptions } from './require-spiffe-id.ts';
