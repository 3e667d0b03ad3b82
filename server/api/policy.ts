/** Which callers may use which method: the one table that says so. A method that has no row is denied. */

/** `any`: no check. `local`: through the admin socket. The others are known by their X.509-SVID. */
export type CallerClass = 'any' | 'local' | 'admin' | 'downstream' | 'agent';
/** Which of SPIRE's rate limits counts the call. */
export type Limit = 'attestation' | 'csr' | 'jwt' | 'push-key' | 'post-status';

export interface Rule {
  readonly allow: readonly CallerClass[];
  readonly limit?: Limit;
}

const operators: Rule = { allow: ['local', 'admin'] };
const local: Rule = { allow: ['local'] };
const agents: Rule = { allow: ['agent'] };

function rules(service: string, methods: Readonly<Record<string, Rule>>): [string, Rule][] {
  return Object.entries(methods).map(([name, rule]) => [`/${service}/${name}`, rule]);
}

/** SPIRE's default policy and limits, and ours for the push stream. */
export const POLICY: ReadonlyMap<string, Rule> = new Map([
  ...rules('spire.api.server.agent.v1.Agent', {
    CountAgents: operators,
    ListAgents: operators,
    GetAgent: operators,
    DeleteAgent: operators,
    BanAgent: operators,
    AttestAgent: { allow: ['any'], limit: 'attestation' },
    RenewAgent: { allow: ['agent'], limit: 'csr' },
    CreateJoinToken: operators,
    PostStatus: { allow: ['agent'], limit: 'post-status' },
  }),
  ...rules('spire.api.server.bundle.v1.Bundle', {
    CountBundles: operators,
    GetBundle: { allow: ['any'] },
    AppendBundle: operators,
    PublishJWTAuthority: { allow: ['downstream'], limit: 'push-key' },
    PublishWITAuthority: { allow: ['downstream'], limit: 'push-key' },
    ListFederatedBundles: operators,
    GetFederatedBundle: { allow: ['local', 'admin', 'agent'] },
    BatchCreateFederatedBundle: operators,
    BatchUpdateFederatedBundle: operators,
    BatchSetFederatedBundle: operators,
    BatchDeleteFederatedBundle: operators,
  }),
  ...rules('spire.api.server.entry.v1.Entry', {
    CountEntries: operators,
    ListEntries: operators,
    GetEntry: operators,
    BatchCreateEntry: operators,
    BatchUpdateEntry: operators,
    BatchDeleteEntry: operators,
    GetAuthorizedEntries: agents,
    SyncAuthorizedEntries: agents,
  }),
  ...rules('spire.api.server.svid.v1.SVID', {
    MintX509SVID: operators,
    MintJWTSVID: operators,
    MintWITSVID: operators,
    // counted by its CSRs, in the handler
    BatchNewX509SVID: { allow: ['agent'] },
    NewJWTSVID: { allow: ['agent'], limit: 'jwt' },
    BatchNewWITSVID: agents,
    NewDownstreamX509CA: { allow: ['downstream'], limit: 'csr' },
  }),
  ...rules('spire.api.server.logger.v1.Logger', { GetLogger: local, SetLogLevel: local, ResetLogLevel: local }),
  ...rules('spire.api.server.debug.v1.Debug', { GetInfo: local }),
  ...rules('grpc.health.v1.Health', { Check: local, List: local, Watch: local }),
  ...rules('grpc.reflection.v1.ServerReflection', { ServerReflectionInfo: local }),
  ...rules('grpc.reflection.v1alpha.ServerReflection', { ServerReflectionInfo: local }),
  ...rules('warifu.api.server.push.v1.Push', { Follow: agents }),
  ...rules('warifu.api.server.backup.v1.Backup', { Create: local }),
]);
