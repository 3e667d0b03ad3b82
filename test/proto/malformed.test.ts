/** Malformed bytes are refused by the generated decoders: not repaired, not cut short, not read as something else. */
import { describe, expect, test } from 'vitest';
import { BatchCreateEntryRequest } from '../../proto/gen/spire/api/server/entry/v1/entry.ts';
import { ExtensionNumberResponse } from '../../proto/gen/grpc/reflection/v1/reflection.ts';
import { GetFederatedBundleRequest } from '../../proto/gen/spire/api/server/bundle/v1/bundle.ts';
import { X509SVIDResponse } from '../../proto/gen/spiffe/workload/workload.ts';
import { FollowRequest } from '../../proto/gen/warifu/api/server/push/v1/push.ts';

const decode = (hex: string) => X509SVIDResponse.decode(Buffer.from(hex, 'hex'));

describe('a message', () => {
  test('without fault is read; unknown fields of every kind are passed over', () => {
    expect(decode('0a040a02c3a9').svids[0]?.spiffeId).toBe('é');
    for (const unknown of ['7801', '790102030405060708', '7a0141', '7b7801 7c'.replace(' ', ''), '7d01020304']) {
      expect(decode(`${unknown}0a040a024142`).svids[0]?.spiffeId).toBe('AB');
    }
  });

  for (const [what, hex] of [
    ['text that is no UTF-8', '0a040a02ff41'],
    ['a tag 0 at its start', '000a040a024142'],
    ['a tag 0 at its end', '0a040a02414200'],
    ['a tag of field 0', '010a040a024142'],
    ['an end of a group that never began', '0a040a0241420c'],
    ['a group that never ends', '7b0a00'],
    ['a wire type that there is not', '0e'],
    ['a group that ends as another one', '7b780184010a040a024142'],
    ['a tag of more than 32 bits, whose lower ones are those of a field', '8a80808010040a024142'],
    ['a tag of six octets', '8a8080808000040a024142'],
    ['a field cut short', '0a0a0a02'],
    ['a length without its bytes', '0a'],
    ['a varint without an end', '0a8080'],
    ['a tag 0 within', '0a0500 0a024142'.replace(' ', '')],
    ['a field that runs over the end of the message around it', '0a030a044142 43441a00'.replace(' ', '')],
  ] as const) {
    test(`with ${what} is refused`, () => expect(() => decode(hex)).toThrow());
  }

  test('with packed numbers of which the last runs over their end is refused', () => {
    const numbers = (hex: string) => ExtensionNumberResponse.decode(Buffer.from(hex, 'hex')).extensionNumber;
    expect(numbers('1203010203')).toEqual([1, 2, 3]);
    expect(numbers('12029601')).toEqual([150]);
    expect(() => numbers('1202019601')).toThrow();
  });

  test('with a message twice in one field is refused: what is written once is never two', () => {
    const mask = (hex: string) => GetFederatedBundleRequest.decode(Buffer.from(hex, 'hex')).outputMask;
    expect(mask('12021801')).toMatchObject({ refreshHint: false });
    expect(() => mask('120218011200')).toThrow();
    const step = (hex: string) => FollowRequest.decode(Buffer.from(hex, 'hex')).step?.$case;
    expect(step('1200')).toBe('want');
    expect(() => step('12001200')).toThrow();
  });

  test('is never read in part: no prefix with a tag 0 behind it is taken', () => {
    const whole = BatchCreateEntryRequest.encode(
      BatchCreateEntryRequest.fromPartial({
        entries: [{ hint: 'first' }, { hint: 'second' }],
      }),
    ).finish();
    for (let at = 0; at <= whole.length; at++) {
      const spoilt = Buffer.concat([whole.subarray(0, at), Buffer.of(0, 0), whole.subarray(at)]);
      let entries: number | undefined;
      try {
        entries = BatchCreateEntryRequest.decode(spoilt).entries.length;
      } catch {
        continue;
      }
      // two zero bytes within a text are text
      expect(entries).toBe(2);
    }
  });
});
