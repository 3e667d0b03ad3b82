/** warifu.api.server.push.v1: Follow. Who may call is decided before; here the agent's messages come in and ours go out. */
import type { Entry } from '../../core/entry.ts';
import { entryToWire } from '../../core/entry.ts';
import { versionOf } from '../../core/entry-version.ts';
import { fail } from '../../core/errors.ts';
import type { CallContext, Implementation } from '../../core/rpc-types.ts';
import type { FollowRequest, FollowResponse, PushDefinition, Upsert } from '../../proto/gen/warifu/api/server/push/v1/push.ts';
import type { Follower, Push, Step } from '../push.ts';
import { bundleToMessage } from './bundle-message.ts';

export interface PushApiParts {
  readonly push: Push;
  /** The SPIFFE ID of the agent that calls. Throws DENIED when it is none. */
  readonly agentOf: (context: CallContext) => string;
  /** Throws DENIED once this certificate may not speak for this agent any more. */
  readonly checkStanding: (agentId: string, certificateSha256: string, notAfterMs: number, method: string) => void;
}

const DIGEST_BYTES = 32;

export function createPushApi({ push, agentOf, checkStanding }: PushApiParts): Implementation<typeof PushDefinition> {
  return {
    async *follow(requests, context) {
      const agentId = agentOf(context);
      const { peer, method, cut } = context;
      if (peer.kind !== 'tls') throw fail('DENIED', 'only an agent can follow, over its own connection');
      const incoming = requests[Symbol.asyncIterator]();
      const digest = helloOf(await incoming.next());
      const follower = push.follow(agentId, {
        checkStanding: () => checkStanding(agentId, peer.certificateSha256, peer.notAfterMs, method),
        cut,
      });
      const closed = () => follower.close();
      context.signal.addEventListener('abort', closed, { once: true });
      if (context.signal.aborted) closed();
      // it has its own end: when the agent stops speaking, or when the follower closes
      void answer(incoming, follower).then(closed, (error: unknown) => follower.fail(error));
      try {
        for await (const step of follower.steps(digest)) yield messageOf(step);
      } finally {
        follower.close();
        context.signal.removeEventListener('abort', closed);
      }
    },
  };
}

function helloOf(first: IteratorResult<FollowRequest, unknown>): Buffer {
  if (first.done) throw fail('REQUEST_INVALID', 'the first message must be hello, but the stream ended');
  const { step } = first.value;
  if (step?.$case !== 'hello') throw fail('REQUEST_INVALID', 'the first message must be hello');
  if (step.hello.digest.length !== DIGEST_BYTES)
    throw fail('REQUEST_INVALID', `digest has ${step.hello.digest.length} bytes, not ${DIGEST_BYTES}`);
  return step.hello.digest;
}

/** Takes the agent's questions, one after the other: the next is not read before the answer to this one was taken. */
async function answer(incoming: AsyncIterator<FollowRequest>, follower: Follower): Promise<void> {
  for (;;) {
    const next = await incoming.next();
    if (next.done) return;
    if (next.value.step?.$case !== 'want') throw fail('REQUEST_INVALID', 'after hello only want may follow');
    await follower.want(next.value.step.want.ids);
  }
}

function messageOf(step: Step): FollowResponse {
  switch (step.kind) {
    case 'same':
      return { step: { $case: 'same', same: {} } };
    case 'versions':
      return {
        step: {
          $case: 'versions',
          versions: { versions: step.entries.map((entry) => ({ id: entry.id, version: versionOf(entry) })), more: step.more },
        },
      };
    case 'changes':
      return { step: { $case: 'changes', changes: { upserts: step.upserts.map(upsertOf), removedIds: [...step.removedIds] } } };
    case 'bundles':
      return {
        step: {
          $case: 'bundles',
          bundles: {
            bundles: step.bundles.map((bundle) => bundleToMessage(bundle)),
            removedTrustDomains: [...step.removed],
            complete: step.complete,
          },
        },
      };
    case 'issuers':
      return { step: { $case: 'issuers', issuers: { certificates: step.issuers.map(({ raw }) => raw) } } };
  }
}

function upsertOf(entry: Entry): Upsert {
  return { entry: entryToWire(entry), version: versionOf(entry) };
}
