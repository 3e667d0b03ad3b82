/** SPIFFE IDs out of messages, with what each kind of caller may name; in SPIRE's words. */
import { fail } from '../../core/errors.ts';
import type { SPIFFEID } from '../../proto/gen/spire/api/types/spiffeid.ts';
import { SpiffeId, TrustDomain } from '../../spiffe/id.ts';

type Given = string | SPIFFEID | undefined;

/** An agent's: below `/spire/agent/`. @param what said first when it is not. Throws REQUEST_INVALID. */
export function agentIdOf(given: Given, trustDomain: TrustDomain, what: string): SpiffeId {
  return read(given, what, (id) => {
    checkMember(id, trustDomain);
    if (id.path === '') throw wrong(id, `is not an agent in trust domain ${quoted(trustDomain)}; path is empty`);
    if (!id.path.startsWith('/spire/agent/')) {
      throw wrong(id, `is not an agent in trust domain ${quoted(trustDomain)}; path is not in the agent namespace`);
    }
  });
}

/** A workload's: a path that is not reserved. Throws REQUEST_INVALID. */
export function workloadIdOf(given: Given, trustDomain: TrustDomain, what: string): SpiffeId {
  return read(given, what, (id) => {
    checkMember(id, trustDomain);
    if (id.path === '') throw wrong(id, `is not a workload in trust domain ${quoted(trustDomain)}; path is empty`);
    if (id.path === '/spire' || id.path.startsWith('/spire/')) {
      throw wrong(id, `is not a workload in trust domain ${quoted(trustDomain)}; path is in the reserved namespace`);
    }
  });
}

export function idToMessage({ trustDomain, path }: SpiffeId): SPIFFEID {
  return { trustDomain: trustDomain.name, path };
}

function read(given: Given, what: string, check: (id: SpiffeId) => void): SpiffeId {
  try {
    if (given === undefined) throw fail('REQUEST_INVALID', 'request must specify SPIFFE ID');
    const id = typeof given === 'string' ? SpiffeId.parse(given) : SpiffeId.of(TrustDomain.parse(given.trustDomain), given.path);
    check(id);
    return id;
  } catch (cause) {
    throw fail('REQUEST_INVALID', `${what}: ${(cause as Error).message}`, { cause });
  }
}

function checkMember(id: SpiffeId, trustDomain: TrustDomain): void {
  if (!id.memberOf(trustDomain)) throw wrong(id, `is not a member of trust domain ${quoted(trustDomain)}`);
}

function wrong(id: SpiffeId, why: string) {
  return fail('REQUEST_INVALID', `${JSON.stringify(String(id))} ${why}`);
}

function quoted(trustDomain: TrustDomain): string {
  return JSON.stringify(trustDomain.name);
}
