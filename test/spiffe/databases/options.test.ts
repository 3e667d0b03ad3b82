/** What is given to drivers as it is: who forgets something hears of it at once, and what a driver reads never throws. */
import { createSecureContext } from 'node:tls';
import { describe, expect, test } from 'vitest';
import { BundleSet } from '../../../spiffe/bundle/bundle.ts';
import * as databases from '../../../spiffe/databases/index.ts';
import type { Logger } from '../../../spiffe/logger.ts';
import { matchAny, memberOf } from '../../../spiffe/match.ts';
import { X509MemorySource } from '../../../spiffe/source/memory-source.ts';
import { EphemeralTrustDomain } from '../../../spiffe/testing/trust-domain.ts';

const domain = EphemeralTrustDomain.create('example.org');
const source = () => new X509MemorySource({ svid: domain.x509Svid('/me'), bundles: new BundleSet([domain.bundle]) });
const authorize = memberOf('example.org');
const { pgOptions, ioredisOptions, kafkajsOptions, tlsOptions, mongodbOptions, mysql2Options, webTlsOptions, pemOptions } = databases;

describe.each(Object.entries({ pgOptions, ioredisOptions, kafkajsOptions, tlsOptions, mongodbOptions }))('%s', (_, options) => {
  test('takes a source and who may', () => expect(options(source(), { authorize })).toBeTypeOf('object'));
  // for those whom no compiler warns
  test('needs to be told who may', () => expect(() => options(source(), {} as never)).toThrow('authorize is missing'));
  test('needs a source', () => expect(() => options(undefined as never, { authorize })).toThrow('the source is missing'));
});

describe.each(Object.entries({ mysql2Options, webTlsOptions }))('%s', (_, options) => {
  test('takes a source', () => expect(options(source())).toBeTypeOf('object'));
  test('needs one', () => expect(() => options(undefined as never)).toThrow('the source is missing'));
});

test('a trust domain that is none is refused', () =>
  expect(() => tlsOptions(source(), { authorize, trustDomain: 'Example.org' })).toThrow(expect.objectContaining({ code: 'ID_INVALID' })));

describe('while there is nothing', () => {
  const told: string[] = [];
  const warn = (message: string) => void told.push(message);
  const log: Logger = { debug() {}, info() {}, warn, error() {} };

  test('reading an option throws nothing, trusts nobody, and tells the logger once', () => {
    const { key, cert, ca, checkServerIdentity } = tlsOptions(new X509MemorySource(), { authorize: matchAny(), log });
    expect({ key, cert, ca }).toEqual({ key: undefined, cert: undefined, ca: [] });
    expect(checkServerIdentity('localhost', {} as never)).toMatchObject({ code: 'UNAVAILABLE' });
    expect(told).toEqual(['Connections to a server that takes our X.509-SVID can only fail now']);
  });

  test('a context is made all the same', () => {
    const { secureContext } = mongodbOptions(new X509MemorySource(), { authorize });
    expect(secureContext.context).toBeTypeOf('object');
  });
});

describe('pemOptions', () => {
  test('gives what holds now, as texts', () => {
    const from = source();
    const { key, cert, ca } = pemOptions(from);
    expect({ cert, key }).toEqual({ cert: from.svid.toPem().certificates, key: from.svid.toPem().key });
    expect(ca).toBe(domain.bundle.x509.toPem());
    expect(createSecureContext({ key, cert, ca })).toBeTypeOf('object');
  });

  test('throws while there is no SVID', () =>
    expect(() => pemOptions(new X509MemorySource())).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' })));

  test('throws while there is no bundle of the trust domain', () =>
    expect(() => pemOptions(source(), { trustDomain: 'far.org' })).toThrow(expect.objectContaining({ code: 'BUNDLE_MISSING' })));
});

describe('no authority of one trust domain can speak for another', () => {
  const far = EphemeralTrustDomain.create('far.org');
  const both = () => new X509MemorySource({ svid: domain.x509Svid('/me'), bundles: new BundleSet([domain.bundle, far.bundle]) });

  test.each([
    ['our own', {}, domain],
    ['the one that was named', { trustDomain: 'far.org' }, far],
  ] as const)('`ca` holds the authorities of %s alone', (_, named, { bundle }) => {
    const expected = bundle.x509.authorities.length;
    for (const { ca } of [tlsOptions(both(), { authorize, ...named }), mysql2Options(both(), named)]) {
      expect(ca).toHaveLength(expected);
      expect(ca.join('')).toBe(bundle.x509.toPem());
    }
  });
});
