import { expect, test } from 'vitest';
import { Latest } from '../../spiffe/latest.ts';

const end = (promise: Promise<unknown>) =>
  promise.then(
    () => 'no error',
    (error: unknown) => error,
  );

test('a reader gets the value that there is, then each newer one', async () => {
  const latest = new Latest(1);
  const values = latest.changes(new AbortController().signal);
  expect((await values.next()).value).toBe(1);
  const next = values.next();
  latest.set(2);
  expect((await next).value).toBe(2);
  expect(latest.value).toBe(2);
});

test('a reader who was busy gets the newest value only', async () => {
  const latest = new Latest('a');
  const values = latest.changes(new AbortController().signal);
  await values.next();
  for (const value of ['b', 'c', 'd']) latest.set(value);
  expect((await values.next()).value).toBe('d');
});

test('a value that is set again is told again: what is equal is for the reader to say', async () => {
  const latest = new Latest(1);
  const values = latest.changes(new AbortController().signal);
  await values.next();
  const next = values.next();
  latest.set(1);
  expect((await next).value).toBe(1);
});

test('every reader gets the newest, however many there are and whenever they came', async () => {
  const latest = new Latest(0);
  const { signal } = new AbortController();
  const readers = Array.from({ length: 50 }, () => latest.changes(signal));
  await Promise.all(readers.map((reader) => reader.next()));
  const waiting = readers.map((reader) => reader.next());
  latest.set(1);
  expect((await Promise.all(waiting)).map(({ value }) => value)).toEqual(Array(50).fill(1));
  expect((await latest.changes(signal).next()).value).toBe(1);
});

test('a reader ends with the reason of its signal: before, and while it waits; the others go on', async () => {
  const latest = new Latest(1);
  const reason = new Error('enough');
  expect(await end(latest.changes(AbortSignal.abort(reason)).next())).toBe(reason);

  const stop = new AbortController();
  const [stopped, other] = [latest.changes(stop.signal), latest.changes(new AbortController().signal)];
  await Promise.all([stopped.next(), other.next()]);
  const [ended, next] = [end(stopped.next()), other.next()];
  stop.abort(reason);
  expect(await ended).toBe(reason);
  latest.set(2);
  expect((await next).value).toBe(2);
});

test('a reader who was told to stop begins with nothing new', async () => {
  const latest = new Latest(1);
  const stop = new AbortController();
  const values = latest.changes(stop.signal);
  await values.next();
  const ended = end(values.next());
  latest.set(2);
  stop.abort(new Error('enough'));
  expect(await ended).toMatchObject({ message: 'enough' });
  expect(latest.value).toBe(2);
});
