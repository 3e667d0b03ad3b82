/** Registration entries: from the wire as the server reads them, and from files as the command line does. The first octet says which. */
import { entryToWire, parseEntry, parseUpdate } from '../../../core/entry.ts';
import { parseEntries, parseIds } from '../../../cli/entry-file.ts';
import { BatchCreateEntryRequest } from '../../../proto/gen/spire/api/server/entry/v1/entry.ts';
import { Entry as WireEntry, EntryMask } from '../../../proto/gen/spire/api/types/entry.ts';
import { TrustDomain } from '../../../spiffe/id.ts';
import { isCoded } from '../../../core/errors.ts';
import { about, type Target, wrong } from '../fuzzer.ts';
import { jsonMutation } from '../json.ts';
import { wireMutation } from '../wire.ts';
import type { Mutation } from '../mutations.ts';

const trustDomain = TrustDomain.parse('example.org');
const OPTIONS = {
  trustDomain,
  hasBundle: (other: TrustDomain) => other.name !== 'unknown.org',
  nowMs: 1_780_000_000_000,
  newId: () => 'new',
};

export default function entry(): Target {
  const whole = {
    id: 'e1',
    spiffeId: { trustDomain: 'example.org', path: '/web' },
    parentId: { trustDomain: 'example.org', path: '/spire/agent/join_token/x' },
    selectors: [
      { type: 'unix', value: 'uid:1000' },
      { type: 'k8s', value: 'ns:default' },
    ],
    x509SvidTtl: 3600,
    jwtSvidTtl: 300,
    federatesWith: ['other.org', 'spiffe://third.org'],
    dnsNames: ['a.test', '*.b.test'],
    expiresAt: 1_790_000_000,
    hint: 'internal',
    admin: true,
    storeSvid: false,
    additionalAttributes: { jwtSvidIncludeJti: true },
  };
  const small = { spiffeId: whole.spiffeId, parentId: whole.parentId, selectors: whole.selectors };
  const file = JSON.stringify({
    entries: [
      {
        spiffe_id: 'spiffe://example.org/web',
        parent_id: 'spiffe://example.org/node',
        selectors: [{ type: 'unix', value: 'uid:0' }],
        x509_svid_ttl: 60,
        jwt_svid_ttl: 60,
        entryExpiry: 1_790_000_000,
        dns_names: ['a.test'],
        federates_with: ['other.org'],
        admin: true,
        store_svid: false,
        hint: 'x',
        additional_attributes: { jwt_svid_include_jti: true },
      },
    ],
  });
  const [anyWire, anyJson] = [wireMutation(1), jsonMutation()];
  const ofItsKind: Mutation = (random, input, other) =>
    (input[0] ?? 0) % 3 === 0
      ? anyWire(random, input, other)
      : Buffer.concat([input.subarray(0, 1), anyJson(random, input.subarray(1), other.subarray(1))]);
  return {
    seeds: [
      ...[whole, small].map((one) => Buffer.concat([Buffer.of(0), WireEntry.encode(WireEntry.fromPartial(one)).finish()])),
      Buffer.concat([Buffer.of(1), Buffer.from(file)]),
      Buffer.concat([Buffer.of(2), Buffer.from('{"ids":["a","b"]}')]),
    ],
    words: [
      'spiffe_id',
      'parent_id',
      'selectors',
      'entries',
      'ids',
      'null',
      'example.org',
      'unknown.org',
      '/spire/agent/x',
      '/spire',
      '/',
      ':',
      '..',
      '__proto__',
      '[',
      '{',
    ],
    mutations: [ofItsKind],
    run(input) {
      const kind = (input[0] ?? 0) % 3;
      const bytes = input.subarray(1);
      if (kind === 1) {
        const entries = parseEntries(bytes);
        BatchCreateEntryRequest.encode(BatchCreateEntryRequest.fromPartial({ entries })).finish();
        for (const one of entries) attempt(() => parseEntry(WireEntry.fromPartial(one), OPTIONS));
        return `${about(entries.length)} entries`;
      }
      if (kind === 2) return `${about(parseIds(bytes).length)} ids`;
      let wire: WireEntry;
      try {
        wire = WireEntry.decode(bytes);
      } catch {
        return 'no message';
      }
      const mask = EntryMask.fromPartial({
        selectors: true,
        spiffeId: input.length % 2 === 0,
        expiresAt: true,
        dnsNames: input.length % 3 === 0,
      });
      attempt(() => parseUpdate(wire, mask, OPTIONS));
      const made = parseEntry(wire, OPTIONS);
      const written = WireEntry.encode(entryToWire(made)).finish();
      const again = parseEntry(WireEntry.decode(written), OPTIONS);
      if (!Buffer.from(WireEntry.encode(entryToWire(again)).finish()).equals(Buffer.from(written)))
        throw wrong('an entry written and read is another one');
      if (!made.spiffeId.memberOf(trustDomain) || made.spiffeId.path.startsWith('/spire/'))
        throw wrong('an entry for an ID that no workload may have', made.spiffeId);
      if (made.selectors.length === 0 || made.selectors.some(({ type, value }) => type === '' || type.includes(':') || value === ''))
        throw wrong('an entry with a selector that is none');
      // what it is stored and printed as
      void [new Date(made.expiresAtMs).toISOString(), JSON.stringify(made)];
      return [made.selectors.length, made.dnsNames.length, made.federatesWith.length].map(about).join();
    },
  };
}

function attempt(run: () => unknown): void {
  try {
    run();
  } catch (error) {
    if (!isCoded(error)) throw error;
  }
}
