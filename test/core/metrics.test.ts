/** Metrics under SPIRE's names, as a Prometheus server reads them. */
import { once } from 'node:events';
import { hostname } from 'node:os';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { commonLabels, listenMetrics, type MetricsServer, noMetrics, rpcNames } from '../../core/metrics.ts';

describe('what SPIRE calls a method', () => {
  test.each([
    ['/spire.api.server.agent.v1.Agent/AttestAgent', 'rpc.agent.v1.agent.attest_agent', 'agent.v1.Agent'],
    ['/spire.api.server.bundle.v1.Bundle/PublishJWTAuthority', 'rpc.bundle.v1.bundle.publish_jwt_authority', 'bundle.v1.Bundle'],
    ['/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries', 'rpc.entry.v1.entry.sync_authorized_entries', 'entry.v1.Entry'],
    ['/spire.api.server.svid.v1.SVID/BatchNewX509SVID', 'rpc.svid.v1.svid.batch_new_x509svid', 'svid.v1.SVID'],
    ['/spire.api.server.svid.v1.SVID/NewDownstreamX509CA', 'rpc.svid.v1.svid.new_downstream_x509ca', 'svid.v1.SVID'],
    ['/spire.api.server.svid.v1.SVID/MintJWTSVID', 'rpc.svid.v1.svid.mint_jwtsvid', 'svid.v1.SVID'],
    ['/spire.api.server.debug.v1.Debug/GetInfo', 'rpc.debug.v1.debug.get_info', 'debug.v1.Debug'],
    [
      '/spire.api.server.localauthority.v1.LocalAuthority/GetX509AuthorityState',
      'rpc.localauthority.v1.local_authority.get_x509_authority_state',
      'localauthority.v1.LocalAuthority',
    ],
    ['/spire.api.server.logger.v1.Logger/SetLogLevel', 'rpc.logger.set_log_level', 'Logger'],
    ['/spire.api.agent.logger.v1.Logger/GetLogger', 'rpc.logger.get_logger', 'Logger'],
    ['/spire.agent.debug.v1.Debug/GetInfo', 'rpc.debug.get_info', 'Debug'],
    ['/SpiffeWorkloadAPI/FetchX509SVID', 'rpc.workload_api.fetch_x509svid', 'WorkloadAPI'],
    ['/SpiffeWorkloadAPI/FetchX509Bundles', 'rpc.workload_api.fetch_x509_bundles', 'WorkloadAPI'],
    ['/SpiffeWorkloadAPI/ValidateJWTSVID', 'rpc.workload_api.validate_jwtsvid', 'WorkloadAPI'],
    ['/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets', 'rpc.sds.v3.stream_secrets', 'SDS.v3'],
    [
      '/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/FetchJWTSVIDs',
      'rpc.delegated_identity.fetch_jwtsvi_ds',
      'DelegatedIdentity',
    ],
    ['/grpc.health.v1.Health/Check', 'rpc.health.check', 'Health'],
    [
      '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo',
      'rpc.grpc.reflection.v1alpha.server_reflection.server_reflection_info',
      'grpc.reflection.v1alpha.ServerReflection',
    ],
  ])('%s is %s', (path, metric, service) => {
    expect(rpcNames(path)).toEqual({ metric, service, method: path.slice(path.lastIndexOf('/') + 1) });
  });
});

describe('over HTTP', () => {
  let listener: MetricsServer;
  beforeEach(async () => {
    listener = await listenMetrics({ host: '127.0.0.1', port: 0, prefix: 'spire_server', labels: { trust_domain: 'example_org' } });
  });
  afterEach(async () => {
    listener.server.closeAllConnections();
    listener.server.close();
    await once(listener.server, 'close');
  });
  const get = (path = '/', init: RequestInit = {}) =>
    fetch(`http://127.0.0.1:${(listener.server.address() as AddressInfo).port}${path}`, init);
  const lines = async () => (await (await get('/metrics')).text()).split('\n');

  test('Prometheus’ text at any path, and nothing but GET', async () => {
    for (const path of ['/', '/metrics', '/whatever?x=1']) {
      const answer = await get(path);
      expect([answer.status, answer.headers.get('content-type')]).toEqual([200, expect.stringContaining('text/plain; version=0.0.4')]);
    }
    expect((await get('/', { method: 'POST', body: 'x' })).status).toBe(405);
  });

  test('a call is a counter by its status, and how long it took', async () => {
    const { metric } = rpcNames('/spire.api.server.agent.v1.Agent/AttestAgent');
    listener.metrics.call(metric, 'OK', 10);
    listener.metrics.call(metric, 'OK', 20);
    listener.metrics.call(metric, 'PermissionDenied', 1);
    const text = await lines();
    expect(text).toContain('spire_server_rpc_agent_v1_agent_attest_agent{status="OK",trust_domain="example_org"} 2');
    expect(text).toContain('spire_server_rpc_agent_v1_agent_attest_agent{status="PermissionDenied",trust_domain="example_org"} 1');
    expect(text).toContain('spire_server_rpc_agent_v1_agent_attest_agent_elapsed_time_sum{status="OK",trust_domain="example_org"} 30');
    expect(text).toContain('spire_server_rpc_agent_v1_agent_attest_agent_elapsed_time_count{status="OK",trust_domain="example_org"} 2');
    expect(text).toContain(
      'spire_server_rpc_agent_v1_agent_attest_agent_elapsed_time{quantile="0.5",status="OK",trust_domain="example_org"} 15',
    );
  });

  test('a gauge is asked when somebody reads, and a label’s value can’t break out of its line', async () => {
    let value = 1;
    listener.metrics.gauge('push.streams.count', () => value);
    expect(await lines()).toContain('spire_server_push_streams_count{trust_domain="example_org"} 1');
    value = 7;
    expect(await lines()).toContain('spire_server_push_streams_count{trust_domain="example_org"} 7');
    listener.metrics.count('svid.rotate', { why: 'a"}\nforged_metric 1' });
    expect((await lines()).filter((line) => line.startsWith('forged'))).toEqual([]);
    expect(await lines()).toContain('spire_server_svid_rotate{why="a_forged_metric_1",trust_domain="example_org"} 1');
  });

  test('an address that is taken is a fault that names it', async () => {
    const other = createServer();
    other.listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    const started = listenMetrics({ host: '127.0.0.1', port, prefix: 'x', labels: {} });
    await expect(started).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining(`127.0.0.1:${port}`) as string,
    });
    other.close();
  });
});

test('the common labels are SPIRE’s, each by its own wish', () => {
  expect(commonLabels({ hostname: false, trustDomain: undefined })).toEqual({});
  expect(commonLabels({ hostname: true, trustDomain: 'my-td.example' })).toEqual({
    host: hostname().replaceAll(/\W+/g, '_'),
    trust_domain: 'my_td_example',
  });
});

test('nobody pays when nobody asked', () => {
  noMetrics.call('x', 'OK', 1);
  noMetrics.count('x');
  noMetrics.gauge('x', () => {
    throw new Error('asked');
  });
});
