import { expect, test } from 'vitest';
import { silent } from '../../../core/log.ts';
import { agentJoinToken, serverJoinToken } from '../../../plugins/node-attestor/join_token.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { Latest } from '../../../spiffe/latest.ts';
import { FakeClock } from '../../fakes/clock.ts';

const never = new AbortController().signal;
const trustDomain = TrustDomain.parse('example.org');
const host = { trustDomain, log: silent, clock: new FakeClock(), signal: never, reloads: new Latest(0) };
const agent = (joinToken?: () => Promise<string | undefined>) => agentJoinToken.start({}, { ...host, ...(joinToken && { joinToken }) });

async function attest(payload: Buffer) {
  const server = await serverJoinToken.start({}, host);
  const request = { trustDomain, payload, csrSha256: Buffer.alloc(32), publicKeySha256: Buffer.alloc(32), peerAddress: '192.0.2.1' };
  const questions: Buffer[] = [];
  const ask = async (question: Buffer) => {
    questions.push(question);
    return Buffer.alloc(0);
  };
  const attestation = await server.attest(request, ask, never);
  return { ...attestation, questions };
}

test('the payload is the bytes of the token, and the agent is named after it, without a question, selectors or a second time', async () => {
  const payload = await (await agent(async () => 'f00d-ABC_1.2')).payload(never);
  expect(payload.toString('latin1')).toBe('f00d-ABC_1.2');
  expect(await attest(payload)).toEqual({
    agentPath: '/spire/agent/join_token/f00d-ABC_1.2',
    selectors: [],
    canReattest: false,
    questions: [],
  });
});

test('the token is read anew at each attestation', async () => {
  const tokens = ['first', 'second'];
  const side = await agent(async () => tokens.shift());
  expect(String(await side.payload(never))).toBe('first');
  expect(String(await side.payload(never))).toBe('second');
  await expect(side.payload(never)).rejects.toMatchObject({ code: 'SETTINGS_INVALID' });
});

for (const [what, joinToken] of [
  ['a program that lends no token', undefined],
  ['no token', async () => undefined],
  ['an empty token', async () => ''],
] as const) {
  test(`${what} is refused with the three ways to give one`, async () => {
    await expect((await agent(joinToken)).payload(never)).rejects.toMatchObject({
      code: 'SETTINGS_INVALID',
      message: expect.stringMatching(/^join token was not provided: .*-joinTokenFile .*WARIFU_JOIN_TOKEN.*-joinToken /),
    });
  });
}

for (const [what, payload] of [
  ['nothing', Buffer.alloc(0)],
  ['a slash', Buffer.from('a/b')],
  ['a way out', Buffer.from('..')],
  ['a line feed', Buffer.from('token\n')],
  ['a NUL', Buffer.from('token\0')],
  ['bytes that are not UTF-8', Buffer.from([0x61, 0xff])],
  ['a byte order mark', Buffer.from([0xef, 0xbb, 0xbf, 0x61])],
  ['letters that no SPIFFE ID holds', Buffer.from('tökén')],
  ['more than a SPIFFE ID may hold', Buffer.from('a'.repeat(2048))],
] as const) {
  test(`a token with ${what} is refused in SPIRE's words, which do not repeat it`, async () => {
    const refusal: unknown = await attest(payload).catch((error: unknown) => error);
    expect(refusal).toMatchObject({ code: 'REQUEST_INVALID', message: 'join token does not exist or has already been used' });
    expect(refusal).not.toHaveProperty('cause');
  });
}

test('a question of the server is refused, the token is not an answer', async () => {
  await expect((await agent(async () => 'token')).answer(Buffer.from('token?'), never)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
});

test('neither side has settings: an unknown key is a fault', () => {
  for (const plugin of [serverJoinToken, agentJoinToken]) {
    expect(plugin.settings.safeParse({}).success).toBe(true);
    expect(plugin.settings.safeParse({ token: 'x' }).success).toBe(false);
  }
});
