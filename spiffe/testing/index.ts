/** `@warifu/spiffe/testing`: a trust domain, a Workload API and a bundle endpoint for tests. For outsiders: inside the house the file itself is imported. */
export { FakeBundleEndpoint, type FakeBundleEndpointOptions, type FakeBundleRequest, type FakeWebCertificate } from './bundle-endpoint.ts';
export {
  EphemeralTrustDomain,
  type JwtSvidOptions,
  type RawSvid,
  type RawSvidOptions,
  type TrustDomainOptions,
  type X509SvidOptions,
} from './trust-domain.ts';
export { FakeWorkloadApi, type SeenCall, type WorkloadIdentity, type WorkloadState } from './workload-api.ts';
