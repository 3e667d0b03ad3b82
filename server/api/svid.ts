/** spire.api.server.svid.v1: SVIDs for operators (mint), for agents (their authorized entries) and CAs for downstream servers. */
import { setImmediate } from 'node:timers/promises';
import type { Entry } from '../../core/entry.ts';
import { type CoreError, fail } from '../../core/errors.ts';
import type { Log } from '../../core/log.ts';
import { idToMessage, workloadIdOf } from '../../core/message-id.ts';
import { toStatus } from '../../core/rpc.ts';
import type { CallContext, Implementation } from '../../core/rpc-types.ts';
import { type Csr, parseCsr } from '../../core/x509/csr.ts';
import type { SubjectParts } from '../../spiffe/x509/parts.ts';
import { checkDnsName } from '../../spiffe/x509/parts.ts';
import type { BatchNewX509SVIDResponse_Result, SVIDDefinition } from '../../proto/gen/spire/api/server/svid/v1/svid.ts';
import type { JWTSVID } from '../../proto/gen/spire/api/types/jwtsvid.ts';
import type { X509SVID } from '../../proto/gen/spire/api/types/x509svid.ts';
import { SpiffeError } from '../../spiffe/errors.ts';
import type { SpiffeId, TrustDomain } from '../../spiffe/id.ts';
import type { JwtSvid } from '../../spiffe/jwt/jwt-svid.ts';
import type { Authority, SignedX509Svid } from '../authority.ts';
import type { State } from '../state.ts';
import type { Callers } from './caller.ts';
import { within } from './item-status.ts';
import type { Limits } from './limits.ts';

/** So many signatures, then others get their turn. */
const AT_A_TIME = 16;

export interface SvidApiSettings {
  readonly authority: Authority;
  readonly state: State;
  readonly callers: Callers;
  readonly limits: Limits;
  readonly trustDomain: TrustDomain;
  readonly caSubject: SubjectParts;
  readonly log: Log;
}

export function createSvidApi(settings: SvidApiSettings): Implementation<typeof SVIDDefinition> {
  const { authority, state, callers, limits, trustDomain, log } = settings;

  /** The agent's own entry, or NOT_FOUND: what is not authorized does not exist for it. */
  const authorized = (agentId: string, entryId: string): Entry => {
    const entry = state.entry(entryId);
    if (!entry || !state.isAuthorized(agentId, entryId)) throw fail('NOT_FOUND', 'entry not found or not authorized');
    return entry;
  };

  /** The caller's standing once more: what was revoked while we signed leaves nothing. */
  const stillGood = ({ peer, method }: CallContext) => {
    if (peer.kind === 'tls' && peer.id) callers.checkStanding(String(peer.id), peer.certificateSha256, peer.notAfterMs, method);
  };

  const newX509Svid = async (agentId: string, entryId: string, csrDer: Buffer): Promise<X509SVID> => {
    if (entryId === '') throw fail('REQUEST_INVALID', 'missing entry ID');
    if (csrDer.length === 0) throw fail('REQUEST_INVALID', 'missing CSR');
    const entry = authorized(agentId, entryId);
    const csr = readCsr(csrDer, 'invalid CSR signature');
    const svid = await authority.signX509Svid({
      spiffeId: entry.spiffeId,
      spkiDer: csr.spkiDer,
      ttlMs: entry.x509SvidTtlMs,
      dnsNames: entry.dnsNames,
    });
    log.debug('Signed X509 SVID', {
      agent_id: agentId,
      entry_id: entry.id,
      spiffe_id: String(entry.spiffeId),
      expires_at: new Date(svid.notAfterMs),
    });
    return x509SvidToWire(entry.spiffeId, svid, entry.hint);
  };

  return {
    async mintX509SVID({ csr: csrDer, ttl }) {
      if (csrDer.length === 0) throw fail('REQUEST_INVALID', 'missing CSR');
      checkTtl(ttl);
      const csr = readCsr(csrDer, 'failed to verify CSR signature');
      const [uri, ...others] = csr.uris;
      if (uri === undefined) throw fail('REQUEST_INVALID', 'CSR URI SAN is required');
      if (others.length > 0) throw fail('REQUEST_INVALID', 'only one URI SAN is expected');
      const spiffeId = within('CSR URI SAN is invalid', () => workloadIdOf(uri, trustDomain));
      checkDnsNames(csr.dnsNames);
      const subject = csr.subject.length > 2 ? { subject: csr.subject } : {};
      const svid = await authority.signX509Svid({ spiffeId, spkiDer: csr.spkiDer, ttlMs: ttl * 1000, dnsNames: csr.dnsNames, ...subject });
      return { svid: x509SvidToWire(spiffeId, svid, '') };
    },

    async mintJWTSVID({ id, audience, ttl }) {
      if (authority.settings.disableJwtSvids) throw fail('UNIMPLEMENTED', 'JWT functionality is disabled');
      checkTtl(ttl);
      const spiffeId = within('invalid SPIFFE ID', () => workloadIdOf(id, trustDomain));
      checkAudience(audience);
      return { svid: jwtSvidToWire(await authority.signJwtSvid({ spiffeId, audience, ttlMs: ttl * 1000, jti: false }), '') };
    },

    async batchNewX509SVID({ params }, context) {
      if (params.length === 0) throw fail('REQUEST_INVALID', 'missing parameters');
      const node = await callers.agent(context);
      if (context.peer.kind === 'tls') {
        await limits.take('csr', context.peer.address, params.length, context.signal).catch((error: CoreError) => {
          throw fail(error.code, `rejecting request due to certificate signing rate limiting: ${error.message}`, { cause: error });
        });
      }
      const results: BatchNewX509SVIDResponse_Result[] = [];
      for (const [index, { entryId, csr }] of params.entries()) {
        if (index > 0 && index % AT_A_TIME === 0) await setImmediate();
        context.signal.throwIfAborted();
        try {
          results.push({ status: { code: 0, message: 'OK' }, svid: await newX509Svid(node.id, entryId, csr) });
        } catch (error) {
          const { code, details } = toStatus(error);
          if (!(error instanceof SpiffeError)) log.error('Failed to sign X509-SVID', { entry_id: entryId, error });
          results.push({ status: { code, message: details }, svid: undefined });
        }
      }
      stillGood(context);
      return { results };
    },

    async newJWTSVID({ entryId, audience }, context) {
      if (authority.settings.disableJwtSvids) throw fail('UNIMPLEMENTED', 'JWT functionality is disabled');
      const node = await callers.agent(context);
      if (entryId === '') throw fail('REQUEST_INVALID', 'missing entry ID');
      checkAudience(audience);
      const entry = authorized(node.id, entryId);
      const svid = await authority.signJwtSvid({
        spiffeId: entry.spiffeId,
        audience,
        ttlMs: entry.jwtSvidTtlMs,
        jti: entry.jwtSvidIncludeJti,
      });
      stillGood(context);
      return { svid: jwtSvidToWire(svid, entry.hint) };
    },

    async newDownstreamX509CA({ csr: csrDer, preferredTtl }, context) {
      if (context.peer.kind !== 'tls' || !context.peer.id) throw fail('INTERNAL', 'caller is not a downstream workload');
      if (csrDer.length === 0) throw fail('REQUEST_INVALID', 'missing CSR');
      checkTtl(preferredTtl);
      const entry = state.entriesOf(String(context.peer.id)).find((one) => one.downstream);
      if (!entry) throw fail('INTERNAL', 'caller is not a downstream workload');
      const csr = readCsr(csrDer, 'invalid CSR signature');
      const ttlMs = preferredTtl * 1000 || entry.x509SvidTtlMs;
      const caCertChain = await authority.signDownstreamCa({ spkiDer: csr.spkiDer, ttlMs, subject: settings.caSubject });
      const bundle = state.bundle(trustDomain.name);
      if (!bundle) throw fail('NOT_FOUND', 'bundle not found');
      return { caCertChain: [...caCertChain], x509Authorities: bundle.x509Authorities.map(({ der }) => der) };
    },
  };
}

/** Of a stranger's request only the public key goes on, once he has shown to hold its private half. */
function readCsr(der: Buffer, badSignature: string): Csr {
  let csr: Csr;
  try {
    csr = parseCsr(der);
  } catch (cause) {
    throw fail('REQUEST_INVALID', `malformed CSR: ${(cause as Error).message}`, { cause });
  }
  try {
    csr.verifySignature();
  } catch (cause) {
    throw fail('REQUEST_INVALID', badSignature, { cause });
  }
  return csr;
}

function checkTtl(seconds: number): void {
  if (seconds < 0) throw fail('REQUEST_INVALID', 'ttl is negative');
}

/** JWT-14: one value or more, none of them empty; nothing is signed otherwise. */
function checkAudience(audience: readonly string[]): void {
  if (audience.length === 0 || audience.some((one) => one === '')) throw fail('REQUEST_INVALID', 'at least one audience is required');
}

function checkDnsNames(names: readonly string[]): void {
  for (const name of names) {
    try {
      checkDnsName(name);
    } catch (cause) {
      throw fail('REQUEST_INVALID', `CSR DNS name is invalid: ${(cause as Error).message}`, { cause });
    }
  }
  for (const wild of names.filter((name) => name.startsWith('*.'))) {
    if (names.some((name) => name !== wild && name.slice(name.indexOf('.')) === wild.slice(1))) {
      throw fail('REQUEST_INVALID', 'CSR DNS name contains a wildcard that covers another non-wildcard name');
    }
  }
}

export function x509SvidToWire(id: SpiffeId, { chainDer, notAfterMs }: SignedX509Svid, hint: string): X509SVID {
  return { certChain: [...chainDer], id: idToMessage(id), expiresAt: Math.floor(notAfterMs / 1000), hint };
}

function jwtSvidToWire(svid: JwtSvid, hint: string): JWTSVID {
  const { id } = svid;
  return {
    token: svid.token,
    id: idToMessage(id),
    expiresAt: Math.floor(svid.expiresMs / 1000),
    issuedAt: Math.floor((svid.issuedAtMs ?? 0) / 1000),
    hint,
  };
}
