/** Whether a proxy serves: it has an SVID, a bundle to judge peers by and its rules, and still accepts. */
import type { Identity } from './identity.ts';
import type { ProxyState } from './proxy.ts';

export interface Readiness {
  readonly ready: boolean;
  /** What is missing; empty when nothing is. */
  readonly waitingFor: readonly string[];
}

/** @param identities by name. Rules need no asking: without its file of intentions a proxy does not start, and keeps those that it has read. */
export function readinessOf({
  state,
  identities,
}: {
  readonly state: ProxyState;
  readonly identities: ReadonlyMap<string, Identity>;
}): Readiness {
  const waitingFor = [...identities.values()].flatMap((identity) => lacks(identity));
  if (state === 'initializing') waitingFor.push('initializing');
  if (state === 'stopping') waitingFor.push('stopping: no connection is accepted any more');
  return { ready: waitingFor.length === 0, waitingFor };
}

function lacks({ waitingFor, own, authorities }: Identity): string[] {
  if (waitingFor !== undefined) return [waitingFor];
  const domain = own?.id?.trustDomain.name;
  if (domain === undefined || authorities === undefined || authorities.some(({ trustDomain }) => trustDomain === domain)) return [];
  return [`the bundle of ${domain} is empty: nobody of our own trust domain is trusted`];
}

/** Of several processes: ready when each is. Of none: not ready. */
export function mergeReadiness(all: readonly Readiness[]): Readiness {
  if (all.length === 0) return { ready: false, waitingFor: ['no process has answered'] };
  return { ready: all.every(({ ready }) => ready), waitingFor: [...new Set(all.flatMap(({ waitingFor }) => waitingFor))] };
}
