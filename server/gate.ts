/** What every call passes before its handler: who calls and may he, SPIRE's rate limits; and what is counted and audited when it ends. */
import { randomUUID } from 'node:crypto';
import { fail, isCoded } from '../core/errors.ts';
import type { Fields, Log } from '../core/log.ts';
import { type Metrics, rpcNames } from '../core/metrics.ts';
import { type Gate, type Outcome, statusName, toStatus } from '../core/rpc.ts';
import type { CallContext, Peer } from '../core/rpc-types.ts';
import type { Clock } from '../spiffe/clock.ts';
import type { Callers } from './api/caller.ts';
import type { Limits } from './api/limits.ts';
import { POLICY } from './api/policy.ts';

export interface GateParts {
  readonly callers: Callers;
  readonly limits: Limits;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
  /** `audit_log_enabled`. */
  readonly audit: boolean;
}

/** Calls that are asked so often, and say so little, that they are no news. */
const QUIET = new Set(['/grpc.health.v1.Health/Check', '/grpc.health.v1.Health/Watch']);

export function createGate({ callers, limits, metrics, clock, log, audit }: GateParts): Gate {
  return async (context) => {
    const startedAt = clock.monotonic();
    const { method } = context;
    const told = (outcome: Outcome) => {
      const status = statusName(outcome.code);
      metrics.call(rpcNames(method).metric, status, clock.monotonic() - startedAt);
      if (audit && !QUIET.has(method))
        log.info('API accessed', { type: 'audit', request_id: randomUUID(), ...fieldsOf(context), ...resultOf(outcome) });
      else if (outcome.code !== 0 && !context.signal.aborted) log.debug('Call refused', { ...fieldsOf(context), ...resultOf(outcome) });
    };
    try {
      await callers.check(context);
      await limit(limits, context);
    } catch (error) {
      const { code, details } = toStatus(error);
      told({ code, message: details, error });
      throw error;
    }
    return told;
  };
}

async function limit(limits: Limits, { method, peer, signal }: CallContext): Promise<void> {
  const rule = POLICY.get(method);
  if (!rule?.limit || peer.kind !== 'tls') return;
  try {
    await limits.take(rule.limit, peer.address, 1, signal);
  } catch (error) {
    if (!isCoded(error)) throw error;
    throw fail(error.code, `rejecting request due to ${LIMITED[rpcNames(method).method] ?? 'rate limiting'}: ${error.message}`, {
      cause: error,
    });
  }
}

/** SPIRE's words, of each method its own. */
const LIMITED: Readonly<Record<string, string>> = {
  AttestAgent: 'attest agent rate limiting',
  RenewAgent: 'renew agent rate limiting',
  PostStatus: 'post status rate limiting',
  PublishJWTAuthority: 'key publishing rate limiting',
  NewJWTSVID: 'JWT signing request rate limiting',
  NewDownstreamX509CA: 'downstream CA signing rate limit',
};

function fieldsOf({ method, peer }: CallContext): Fields {
  const names = rpcNames(method);
  return { service: names.service, method: names.method, ...callerOf(peer) };
}

function callerOf(peer: Peer): Fields {
  if (peer.kind === 'process') return { caller_pid: peer.pid, caller_uid: peer.uid, caller_gid: peer.gid };
  return { caller_addr: peer.address, ...(peer.id && { caller_id: String(peer.id) }) };
}

function resultOf({ code, message }: Outcome): Fields {
  return code === 0 ? { status: 'success' } : { status: 'error', status_code: statusName(code), status_message: message };
}
