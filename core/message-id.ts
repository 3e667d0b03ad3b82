/** SPIFFE IDs in messages: read once at the door, as what they must be there, refused in SPIRE's words. */
import type { SPIFFEID } from '../proto/gen/spire/api/types/spiffeid.ts';
import { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { fail } from './errors.ts';

type Given = string | SPIFFEID | undefined;

/** An ID of this trust domain, with a path. Throws REQUEST_INVALID or ID_INVALID. */
export function memberIdOf(given: Given, trustDomain: TrustDomain): SpiffeId {
  return idOf(given, trustDomain, 'a member of');
}

/** An ID that a workload may have: not one of those reserved for servers and agents. Throws REQUEST_INVALID or ID_INVALID. */
export function workloadIdOf(given: Given, trustDomain: TrustDomain): SpiffeId {
  const id = idOf(given, trustDomain, 'a workload in');
  if (id.path === '/spire' || id.path.startsWith('/spire/'))
    throw wrong(id, trustDomain, 'a workload in', 'path is in the reserved namespace');
  return id;
}

/** An agent's: below `/spire/agent/`. Throws REQUEST_INVALID or ID_INVALID. */
export function agentIdOf(given: Given, trustDomain: TrustDomain): SpiffeId {
  const id = idOf(given, trustDomain, 'an agent in');
  if (!id.path.startsWith('/spire/agent/')) throw wrong(id, trustDomain, 'an agent in', 'path is not in the agent namespace');
  return id;
}

export function idToMessage({ trustDomain, path }: SpiffeId): SPIFFEID {
  return { trustDomain: trustDomain.name, path };
}

function idOf(given: Given, own: TrustDomain, as: string): SpiffeId {
  if (given === undefined) throw fail('REQUEST_INVALID', 'request must specify SPIFFE ID');
  const id = typeof given === 'string' ? SpiffeId.parse(given) : SpiffeId.of(TrustDomain.parse(given.trustDomain), given.path);
  if (!id.memberOf(own)) throw wrong(id, own, 'a member of');
  if (id.path === '') throw wrong(id, own, as, 'path is empty');
  return id;
}

function wrong(id: SpiffeId, own: TrustDomain, as: string, why?: string) {
  const [seen, wanted] = [JSON.stringify(String(id)), JSON.stringify(String(own))];
  return fail('REQUEST_INVALID', `${seen} is not ${as} trust domain ${wanted}${why === undefined ? '' : `; ${why}`}`);
}
