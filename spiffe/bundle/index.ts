/** `@warifu/spiffe/federation`: bundle endpoints, asked once, followed for ever, and served. For outsiders: inside the house the file itself is imported. */
export {
  type EndpointAddress,
  type EndpointProfile,
  fetchBundle,
  type FetchBundleOptions,
  type FetchLimits,
  type HttpsSpiffe,
  type HttpsWeb,
} from './endpoint-client.ts';
export { bundleFetchHandler, bundleHandler, type BundleHandlerOptions } from './endpoint-handler.ts';
export {
  BundleEndpointSource,
  type BundleEndpointSourceOptions,
  type BundleEndpointStatus,
  type FollowedEndpoint,
  type FollowedHttpsSpiffe,
} from './endpoint-source.ts';
