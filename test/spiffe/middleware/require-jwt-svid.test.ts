/** Requests with a JWT-SVID, in every framework, over real sockets: who passes, who does not, and what either is told. */
import { type IncomingMessage, type RequestListener, ServerResponse } from 'node:http';
import { type ClientSessionOptions, connect as connectHttp2, createServer as createHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { Hono } from 'hono';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { SpiffeError } from '../../../spiffe/errors.ts';
import type { TrustDomain } from '../../../spiffe/id.ts';
import { JwtSource } from '../../../spiffe/source/jwt-source.ts';
import { matchAny, memberOf } from '../../../spiffe/match.ts';
import { spiffeOf } from '../../../spiffe/middleware/caller.ts';
import { requireJwtSvid, type RequireJwtSvidOptions } from '../../../spiffe/middleware/require-jwt-svid.ts';
import {
  type Answer,
  ask,
  bundles,
  clock,
  closeAll,
  foreignKey,
  FRAMEWORKS,
  keptLog,
  listen,
  NOW_S,
  rawAsk,
  serve,
  statuses,
  token,
} from './rig.ts';

const log = keptLog();
const options: RequireJwtSvidOptions = { audience: 'orders', bundles, clock, log, authorize: memberOf('example.org') };
const NO_TOKEN = 'Bearer realm="spiffe"';
const BAD_TOKEN = 'Bearer realm="spiffe", error="invalid_token"';

/** What a request is answered, and the reason that the log has. */
type Case = readonly [
  what: string,
  authorization: () => Promise<string | undefined> | string | undefined,
  status: number,
  reason: string,
  challenge?: string,
];

const bearer = async (made: Promise<string>) => `Bearer ${await made}`;
const REFUSED: readonly Case[] = [
  ['no credential', () => undefined, 401, 'HTTP_CREDENTIAL_MISSING', NO_TOKEN],
  ['another scheme', () => 'Basic dXNlcjpwYXNz', 401, 'HTTP_CREDENTIAL_MISSING', NO_TOKEN],
  ['a scheme that begins as ours', async () => `BearerX ${await token()}`, 401, 'HTTP_CREDENTIAL_MISSING', NO_TOKEN],
  ['no scheme', () => token(), 401, 'HTTP_CREDENTIAL_MISSING', NO_TOKEN],
  ['a scheme and nothing', () => 'Bearer', 401, 'HTTP_AUTHORIZATION', BAD_TOKEN],
  ['two tokens', async () => `Bearer ${await token()} ${await token()}`, 401, 'HTTP_AUTHORIZATION', BAD_TOKEN],
  ['a list of two', async () => `Bearer ${await token()}, Bearer ${await token()}`, 401, 'HTTP_AUTHORIZATION', BAD_TOKEN],
  ['a list that ends in nothing', async () => `Bearer ${await token()},`, 401, 'HTTP_AUTHORIZATION', BAD_TOKEN],
  ['a token in quotes', async () => `Bearer "${await token()}"`, 401, 'HTTP_AUTHORIZATION', BAD_TOKEN],
  ['a tab for a space', async () => `Bearer\t${await token()}`, 401, 'HTTP_AUTHORIZATION', BAD_TOKEN],
  ['a malformed token', () => 'Bearer abc', 401, 'JWT_SERIALIZATION', BAD_TOKEN],
  ['an algorithm that signs nothing', () => 'Bearer eyJhbGciOiJub25lIn0.e30.', 401, 'JWT_ALG', BAD_TOKEN],
  ['an expired token', () => bearer(token({ exp: NOW_S - 120 })), 401, 'JWT_EXPIRED', BAD_TOKEN],
  ['a token of tomorrow', () => bearer(token({ nbf: NOW_S + 120 })), 401, 'JWT_NOT_YET_VALID', BAD_TOKEN],
  ['another audience', () => bearer(token({ aud: ['payments'] })), 401, 'JWT_AUD_UNEXPECTED', BAD_TOKEN],
  ['a trust domain that has no bundle', () => bearer(token({ sub: 'spiffe://nowhere.org/web' })), 401, 'JWT_BUNDLE_MISSING', BAD_TOKEN],
  ['our trust domain by the key of another', () => bearer(token({}, foreignKey)), 401, 'JWT_SIGNATURE', BAD_TOKEN],
  ['an identity that may not', () => bearer(token({ sub: 'spiffe://other.org/web' }, foreignKey)), 403, 'ID_NOT_ALLOWED'],
];

const BODIES: Readonly<Record<number, string>> = {
  401: '{"error":"unauthenticated"}',
  403: '{"error":"forbidden"}',
  503: '{"error":"unavailable"}',
};

/** Everything that a refused caller sees is the same for every refusal of its kind. */
function expectRefusal(answer: Answer, status: number, challenge?: string): void {
  expect([answer.status, answer.body, answer.headers['www-authenticate']]).toEqual([status, BODIES[status], challenge]);
  expect(answer.headers['cache-control']).toBe('no-store');
  expect(answer.headers['content-type']).toMatch(/^application\/json/);
}

/** Tells the time once, when the guard is made. */
function breaking() {
  let asked = 0;
  return { now: () => (asked++ === 0 ? clock.now() : Number.NaN) };
}

afterEach(() => void log.lines.splice(0));
afterAll(closeAll);

for (const [name, framework] of Object.entries(FRAMEWORKS)) {
  describe(`${name}: JWT-25 the bearer of a JWT-SVID`, () => {
    let port: number;
    beforeAll(async () => {
      port = await serve(await framework(requireJwtSvid(options)));
    });

    test('passes, and the handler knows who it is', async () => {
      expect(await ask(port, { authorization: `Bearer ${await token()}` })).toMatchObject({
        status: 200,
        body: 'spiffe://example.org/web via jwt',
      });
      expect(log.lines).toEqual([]);
    });
    for (const written of ['bearer', 'BEARER', 'Bearer  ', ' Bearer ']) {
      test(`passes with its scheme written ${JSON.stringify(written)}`, async () => {
        expect(await ask(port, { authorization: `${written} ${await token()}` })).toMatchObject({ status: 200 });
      });
    }

    for (const [what, authorization, status, reason, challenge] of REFUSED) {
      test(`${status} for ${what}; why is for the log only`, async () => {
        const value = await authorization();
        expectRefusal(await ask(port, value === undefined ? {} : { authorization: value }), status, challenge);
        expect(log.lines).toMatchObject([{ level: 'warn', message: 'request refused', fields: { status, via: 'jwt', reason } }]);
        // the header is `eyJ`, whatever else a token has
        expect(JSON.stringify(log.lines)).not.toMatch(/eyJ|Basic/);
      });
    }

    test('401 for two Authorization headers, also when both are the same and good', async () => {
      const good = `Authorization: Bearer ${await token()}\r\n`;
      for (const headers of [
        good + good,
        `${good}authorization: Bearer x\r\n`,
        `Authorization: Bearer x\r\n${good}`,
        `Authorization:\r\n${good}`,
      ]) {
        log.lines.splice(0);
        expect(statuses(await rawAsk(port, `GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${headers}\r\n`))).toEqual([401]);
        expect(log.lines[0]?.fields['reason']).toMatch(/^HTTP_AUTHORIZATION/);
      }
      expect(statuses(await rawAsk(port, `GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${good}\r\n`))).toEqual([200]);
    });

    test('a token anywhere else is not looked at', async () => {
      const good = await token();
      const answer = await ask(
        port,
        { cookie: `access_token=${good}`, 'proxy-authorization': `Bearer ${good}` },
        undefined,
        `/?access_token=${good}`,
      );
      expectRefusal(answer, 401, NO_TOKEN);
      const body = `access_token=${good}`;
      const posted = `POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
      expect(statuses(await rawAsk(port, posted))).toEqual([401]);
    });

    test('what a client calls `spiffe` is not who it is', async () => {
      expectRefusal(
        await ask(port, { spiffe: 'spiffe://example.org/admin' }, undefined, '/?spiffe=spiffe://example.org/admin'),
        401,
        NO_TOKEN,
      );
      const answer = await ask(port, { authorization: `Bearer ${await token()}`, spiffe: 'spiffe://example.org/admin' });
      expect(answer.body).toBe('spiffe://example.org/web via jwt');
    });

    test('each of several requests in one go is judged by itself', async () => {
      const good = `Authorization: Bearer ${await token()}\r\n`;
      const one = (headers: string, body = '') => `POST / HTTP/1.1\r\nHost: a\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`;
      const all = [
        one(good),
        one('', 'a body that nobody reads'),
        one(good),
        one('Authorization: Bearer x\r\n'),
        one(`${good}Connection: close\r\n`),
      ];
      expect(statuses(await rawAsk(port, all.join('')))).toEqual([200, 401, 200, 401, 200]);
    });

    test('HTTP/1.0 and HEAD are answered in full', async () => {
      const good = `Authorization: Bearer ${await token()}\r\n`;
      expect(statuses(await rawAsk(port, `GET / HTTP/1.0\r\nHost: a\r\n${good}\r\n`))).toEqual([200]);
      const refused = await rawAsk(port, 'GET / HTTP/1.0\r\nHost: a\r\n\r\n');
      expect(statuses(refused)).toEqual([401]);
      expect(refused.endsWith('{"error":"unauthenticated"}')).toBe(true);
      const head = await rawAsk(port, 'HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
      expect(statuses(head)).toEqual([401]);
      expect(head.endsWith('\r\n\r\n')).toBe(true);
    });

    test('a token of a megabyte is 431 by Node itself, and 401 where Node was told to take it', async () => {
      const long = 'a'.repeat(1024 * 1024);
      const lenient = await serve(await framework(requireJwtSvid(options)), { maxHeaderSize: 4 * 1024 * 1024 });
      const text = `GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer ${long}\r\n\r\n`;
      expect(statuses(await rawAsk(lenient, text))).toEqual([401]);
      expect(log.lines.map(({ fields }) => fields['reason'])).toEqual(['JWT_TOO_LARGE']);
      expect(statuses(await rawAsk(port, text.replace(long, long.slice(0, 20_000))))).toEqual([431]);
    });

    test('503, never a pass, when the bundles or the clock fail; the cause is in the log, whole', async () => {
      const fault = new Error('disk on fire');
      const failing: RequireJwtSvidOptions[] = [
        {
          ...options,
          bundles: {
            jwtBundle: () => {
              throw fault;
            },
          },
        },
        {
          ...options,
          bundles: {
            jwtBundle: () => {
              throw new SpiffeError('CLOSED', undefined, 'the source is closed');
            },
          },
        },
        { ...options, clock: breaking() },
      ];
      for (const how of failing) {
        const broken = await serve(await framework(requireJwtSvid(how)));
        expectRefusal(await ask(broken, { authorization: `Bearer ${await token()}` }), 503);
        // and nobody who shows nothing is told that we are not well
        expectRefusal(await ask(broken), 401, NO_TOKEN);
      }
      const [first, , second] = log.lines;
      expect(first).toMatchObject({ level: 'error', message: 'request could not be judged', fields: { status: 503, error: fault } });
      expect(second).toMatchObject({ level: 'error', fields: { code: 'CLOSED', error: 'the source is closed' } });
    });

    test('503 while a source waits for its first bundles, and when it was closed', async () => {
      const source = new JwtSource({ address: 'unix:///nobody/listens/here.sock' });
      const port = await serve(await framework(requireJwtSvid({ ...options, bundles: source })));
      expectRefusal(await ask(port, { authorization: `Bearer ${await token()}` }), 503);
      await source.close();
      expectRefusal(await ask(port, { authorization: `Bearer ${await token()}` }), 503);
      expect(log.lines.map(({ fields }) => [fields['code'], fields['error']])).toEqual([
        ['UNAVAILABLE', expect.stringContaining('/nobody/listens/here.sock')],
        ['CLOSED', 'the JWT source is closed'],
      ]);
    });

    test('a source that has its bundles knows who is a stranger', async () => {
      const source = { waitingFor: undefined as string | undefined, jwtBundle: (domain: TrustDomain) => bundles.jwtBundle(domain) };
      const port = await serve(await framework(requireJwtSvid({ ...options, bundles: source })));
      const stranger = { authorization: `Bearer ${await token({ sub: 'spiffe://nowhere.org/web' })}` };
      expectRefusal(await ask(port, stranger), 401, BAD_TOKEN);
      source.waitingFor = 'federated bundles';
      expectRefusal(await ask(port, stranger), 503);
      expect(await ask(port, { authorization: `Bearer ${await token()}` })).toMatchObject({ status: 200 });
    });

    test('a log that throws, or rejects, lets nobody in and ends nothing', async () => {
      const bad = {
        ...log,
        warn: () => {
          throw new Error('disk full');
        },
        error: (() => Promise.reject(new Error('disk full'))) as () => void,
      };
      const guarded = await serve(await framework(requireJwtSvid({ ...options, log: bad })));
      expectRefusal(await ask(guarded), 401, NO_TOKEN);
      expectRefusal(await ask(guarded, { authorization: `Bearer ${await token({ sub: 'spiffe://other.org/web' }, foreignKey)}` }), 403);
      const broken = await serve(await framework(requireJwtSvid({ ...options, log: bad, clock: breaking() })));
      expectRefusal(await ask(broken, { authorization: `Bearer ${await token()}` }), 503);
      expect(await ask(guarded, { authorization: `Bearer ${await token()}` })).toMatchObject({ status: 200 });
    });

    test('403 from a matcher that refuses in any way; one that promises allows nobody', async () => {
      const refusing: unknown[] = [
        () => false,
        () => {
          throw new TypeError('a fault of its own');
        },
        async () => true,
        () => 1,
      ];
      for (const authorize of refusing as RequireJwtSvidOptions['authorize'][]) {
        const guarded = await serve(await framework(requireJwtSvid({ ...options, authorize })));
        expectRefusal(await ask(guarded, { authorization: `Bearer ${await token()}` }), 403);
      }
      expect(log.lines.map(({ fields }) => fields['spiffe_id'])).toEqual(refusing.map(() => 'spiffe://example.org/web'));
    });

    test('a second guard asks anew', async () => {
      const both = await serve(await framework(requireJwtSvid(options), requireJwtSvid({ ...options, audience: 'payments' })));
      expectRefusal(await ask(both, { authorization: `Bearer ${await token()}` }), 401, BAD_TOKEN);
      expect(await ask(both, { authorization: `Bearer ${await token({ aud: ['orders', 'payments'] })}` })).toMatchObject({ status: 200 });
    });
  });
}

describe('options that would let nobody or anybody pass are refused at once', () => {
  const wrong: readonly [what: string, change: object][] = [
    ['no audience', { audience: undefined }],
    ['an empty list of audiences', { audience: [] }],
    ['an empty audience', { audience: '' }],
    ['an empty audience in a list', { audience: ['orders', ''] }],
    ['no bundles', { bundles: undefined }],
    ['bundles that are none', { bundles: {} }],
    ['too wide a clock tolerance', { clockToleranceMs: 3_600_000 }],
    ['a lifetime of nothing', { maxLifetimeMs: 0 }],
    ['no matcher', { authorize: undefined }],
    ['an id for a matcher', { authorize: 'spiffe://example.org/web' }],
  ];
  for (const [what, change] of wrong) {
    test(what, () => expect(() => requireJwtSvid({ ...options, ...change })).toThrow(SpiffeError));
  }
  test('a list of audiences is taken as it was', async () => {
    const audience = ['orders'];
    const port = await serve(requireJwtSvid({ ...options, audience }).http((_, response) => response.end('in')));
    audience[0] = 'payments';
    expect(await ask(port, { authorization: `Bearer ${await token()}` })).toMatchObject({ status: 200 });
    expectRefusal(await ask(port, { authorization: `Bearer ${await token({ aud: ['payments'] })}` }), 401, BAD_TOKEN);
  });
});

describe('HTTP/2, where Node keeps the first of two Authorization headers', () => {
  const guard = requireJwtSvid(options);
  let port: number;
  beforeAll(async () => {
    const server = createHttp2(guard.http((request, response) => response.end(`${request.spiffe.id}`)));
    port = await listen((socket) => server.emit('connection', socket));
  });
  const get = (...authorization: string[]) =>
    new Promise<number>((done, failed) => {
      const session = connectHttp2(`http://127.0.0.1:${port}`, { strictSingleValueFields: false } as ClientSessionOptions);
      const stream = session.request([':path', '/', ...authorization.flatMap((value) => ['authorization', value])]);
      stream.once('error', failed);
      stream.once('response', (headers) => {
        session.close();
        stream.resume();
        done(Number(headers[':status']));
      });
    });
  test('one passes', async () => expect(await get(`Bearer ${await token()}`)).toBe(200));
  test('two do not', async () => {
    expect(await get(`Bearer ${await token()}`, 'Bearer x')).toBe(401);
    expect(log.lines[0]?.fields).toMatchObject({ reason: 'HTTP_AUTHORIZATION_REPEATED' });
  });
});

describe('Hono without Node: only the Fetch API', () => {
  const app = new Hono();
  app.use(requireJwtSvid(options).hono);
  app.get('/', (c) => c.text(String(spiffeOf(c)?.id)));
  const get = async (headers: [string, string][]) => app.fetch(new Request('http://a/', { headers }));

  test('a token passes', async () => {
    const answer = await get([['authorization', `Bearer ${await token()}`]]);
    expect([answer.status, await answer.text()]).toEqual([200, 'spiffe://example.org/web']);
  });
  test('none, and two, do not', async () => {
    expect((await get([])).status).toBe(401);
    const line: [string, string] = ['authorization', `Bearer ${await token()}`];
    expect((await get([line, line])).status).toBe(401);
    expect(log.lines.map(({ fields }) => fields['reason'])).toEqual(['HTTP_CREDENTIAL_MISSING', 'HTTP_AUTHORIZATION']);
  });
});

describe('an upgrade, which Node hands past every listener of requests', () => {
  const guard = requireJwtSvid(options);
  const listener: RequestListener = (_, response) => response.end('no upgrade');
  let port: number;
  beforeAll(async () => {
    const { createServer } = await import('node:http');
    const server = createServer(listener);
    server.on(
      'upgrade',
      guard.upgrade((request: IncomingMessage & { readonly spiffe: { readonly id: unknown } }, socket) => {
        (socket as unknown as { end(text: string): void }).end(
          `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n${request.spiffe.id}`,
        );
      }),
    );
    port = await listen((socket) => server.emit('connection', socket));
  });
  const upgrade = (header: string) => rawAsk(port, `GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n${header}\r\n`);

  test('passes with a token', async () => {
    const heard = await upgrade(`Authorization: Bearer ${await token()}\r\n`);
    expect(heard).toMatch(/^HTTP\/1.1 101 .*spiffe:\/\/example.org\/web$/s);
  });
  test('is answered and ended without', async () => {
    const heard = await upgrade('');
    expect(heard).toMatch(/^HTTP\/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm="spiffe"\r\n/);
    expect(heard.endsWith('\r\n\r\n{"error":"unauthenticated"}')).toBe(true);
  });
  test('a client that is gone before its refusal harms nobody', async () => {
    const socket = connect(port, '127.0.0.1');
    await new Promise<void>((done) => socket.once('connect', done));
    socket.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
    socket.resetAndDestroy();
    expect(statuses(await upgrade(''))).toEqual([401]);
  });
});

describe('used in another way than it is meant', () => {
  test('fastify.register is refused when the app starts: a guard of nothing', async () => {
    const { fastify } = await import('fastify');
    const app = fastify();
    // as somebody would who takes it for a plugin
    void app.register(requireJwtSvid(options).fastify as unknown as Parameters<typeof app.register>[0]);
    await expect(app.ready()).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });

  test('after an answer was begun, a refused request ends and goes no further', async () => {
    const guard = requireJwtSvid({ ...options, authorize: matchAny() });
    const seen: string[] = [];
    const port = await serve((request, response) => {
      response.write('begun;');
      guard(request, response, () => {
        seen.push('in');
        response.end('done');
      });
    });
    expect((await ask(port)).body).toBe('begun;');
    expect(seen).toEqual([]);
    expect((await ask(port, { authorization: `Bearer ${await token()}` })).body).toBe('begun;done');
  });

  test('what the guard has shown cannot be written over by a handler', async () => {
    const port = await serve(
      requireJwtSvid(options).http((request, response) => {
        expect(() => Object.assign(request, { spiffe: { id: 'spiffe://example.org/admin' } })).toThrow(TypeError);
        expect(response).toBeInstanceOf(ServerResponse);
        response.end(String(request.spiffe.claims['sub']));
      }),
    );
    expect((await ask(port, { authorization: `Bearer ${await token()}` })).body).toBe('spiffe://example.org/web');
  });
});
