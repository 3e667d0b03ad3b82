/** What the tests of sources share: a trust domain, its Workload API, and waiting for what sockets do. */
import { onTestFinished } from 'vitest';
import type { Logger } from '../../../spiffe/logger.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';
import { FakeWorkloadApi, type WorkloadState } from '../../../spiffe/testing/workload-api.ts';
import { FakeClock } from '../../fakes/clock.ts';

/** A Workload API, which listens unless `late`, and what a source is made with to follow it. */
export async function workload(state: WorkloadState & { readonly late?: boolean } = {}) {
  const clock = new FakeClock();
  const domain = EphemeralTrustDomain.create('example.org', { clock });
  const far = EphemeralTrustDomain.create('far.org', { clock });
  const { late, ...rest } = state;
  const api = new FakeWorkloadApi(domain, { identities: ['/web'], ...rest });
  if (!late) await api.start();
  onTestFinished(() => api[Symbol.asyncDispose]());
  const told: { readonly message: string; readonly error: unknown }[] = [];
  const warn = (message: string, fields: { readonly error?: unknown } = {}) => void told.push({ message, error: fields.error });
  const log: Logger = { debug() {}, info() {}, warn, error() {} };
  return { clock, domain, far, api, told, options: { address: api.address, clock, backoff: () => RETRY_MS, log } };
}

/** Between the tries of a source, by the fake clock. */
export const RETRY_MS = 1000;

/** Closes it with the test. */
export function closing<S extends { close(): Promise<void> }>(source: S): S {
  onTestFinished(() => source.close());
  return source;
}

export const failure = (promise: PromiseLike<unknown>) =>
  Promise.resolve(promise).then(
    () => 'no error',
    (error: unknown) => error,
  );

/** What a getter throws. */
export function refusal(read: () => unknown): unknown {
  try {
    read();
  } catch (error) {
    return error;
  }
  return 'no error';
}

/** Lets sockets and files work until it is so; the test's own limit of time ends it. */
export async function until(so: () => boolean): Promise<void> {
  while (!so()) await new Promise((resolve) => setImmediate(resolve));
}

/** Resolves with the next change of a source. */
export function change(source: { onChange(listener: () => void): () => void }): Promise<void> {
  return new Promise((resolve) => {
    const off = source.onChange(() => {
      off();
      resolve();
    });
  });
}
