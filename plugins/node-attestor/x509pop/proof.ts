/** The dialogue of x509pop: the JSON that SPIRE's two sides speak, and the signature over both sides' nonces that shows who holds the key. */
import { type Curve, type KeyKind, keyKindText } from '../../../spiffe/key-kind.ts';
import { constants, type KeyObject, randomBytes, sign, verify } from 'node:crypto';
import { type CoreError, fail } from '../../../core/errors.ts';
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from '../../../spiffe/json.ts';

const NONCE_BYTES = 32;
/** A nonce, or a nonce with an RSA signature of 8192 bits, and room for members to come. */
const MAX_MESSAGE_BYTES = 16 * 1024;

/** Which of the two members of each message is used; the other one is null. */
type Form = 'rsa_signature' | 'ecdsa_signature';

/** The key kinds that prove something: RSA (rsaEncryption) and EC. Throws REQUEST_INVALID. */
function formOf(kind: KeyKind): Form {
  if (kind.type === 'rsa') return 'rsa_signature';
  if (kind.type === 'ec') return 'ecdsa_signature';
  throw malformed(`unsupported public key type ${keyKindText(kind)}`);
}

/** The first message: DER certificates, the node's own first. */
export function writePayload(certificatesDer: readonly Buffer[]): Buffer {
  return Buffer.from(JSON.stringify({ certificates: certificatesDer.map((one) => one.toString('base64')) }));
}

/** Throws REQUEST_INVALID. */
export function readPayload(payload: Buffer): readonly Buffer[] {
  const { certificates } = readObject(payload, undefined);
  if (certificates === undefined || certificates === null) return [];
  if (!isJsonArray(certificates)) throw malformed('certificates is not a list');
  return certificates.map((one) => bytes(one, 'certificates'));
}

export interface Challenge {
  readonly nonce: Buffer;
  readonly message: Buffer;
}

/** A fresh question to the holder of a key of this kind. Throws REQUEST_INVALID for a kind that cannot be asked. */
export function makeChallenge(kind: KeyKind): Challenge {
  const nonce = randomBytes(NONCE_BYTES);
  return { nonce, message: write(formOf(kind), { nonce }) };
}

/** The agent's answer. Throws REQUEST_INVALID. */
export function answerChallenge(challenge: Buffer, key: KeyObject, kind: KeyKind): Buffer {
  const form = formOf(kind);
  const theirs = nonceOf(readForm(challenge, form, 'challenge'), 'challenge');
  const nonce = randomBytes(NONCE_BYTES);
  const both = Buffer.concat([theirs, nonce]);
  if (form === 'rsa_signature') {
    const signature = sign('sha256', both, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST });
    return write(form, { nonce, signature });
  }
  const rs = sign('sha256', both, { key, dsaEncoding: 'ieee-p1363' });
  return write(form, { nonce, r: unsigned(rs.subarray(0, rs.length / 2)), s: unsigned(rs.subarray(rs.length / 2)) });
}

/** Whether the answer to our nonce was signed with the private half of `key`. Throws REQUEST_INVALID for one that is malformed, DENIED for one that is wrong. */
export function checkAnswer(answer: Buffer, { nonce: ours }: Challenge, key: KeyObject, kind: KeyKind): void {
  const form = formOf(kind);
  const members = readForm(answer, form, 'response');
  const both = Buffer.concat([ours, nonceOf(members, 'response')]);
  const good =
    kind.type === 'ec'
      ? verifyEcdsa(both, key, kind.curve, bytes(members['r'], 'r'), bytes(members['s'], 's'))
      : verify(
          'sha256',
          both,
          // whatever length of salt the signer chose, as Go takes it
          { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_AUTO },
          bytes(members['signature'], 'signature'),
        );
  if (!good)
    throw fail('DENIED', `challenge response verification failed: ${kind.type === 'ec' ? 'ECDSA' : 'RSA'} signature verify failed`);
}

const CURVE_BYTES: Readonly<Record<Curve, number>> = { 'P-256': 32, 'P-384': 48, 'P-521': 66 };

function verifyEcdsa(data: Buffer, key: KeyObject, curve: Curve, r: Buffer, s: Buffer): boolean {
  const size = CURVE_BYTES[curve];
  const fixed = [r, s].map((number) => {
    const minimal = unsigned(number);
    return minimal.length > size ? undefined : Buffer.concat([Buffer.alloc(size - minimal.length), minimal]);
  });
  const [left, right] = fixed;
  return (
    left !== undefined && right !== undefined && verify('sha256', data, { key, dsaEncoding: 'ieee-p1363' }, Buffer.concat([left, right]))
  );
}

/** Big-endian without leading zeros, as Go's big.Int gives it. */
function unsigned(octets: Buffer): Buffer {
  const first = octets.findIndex((octet) => octet !== 0);
  return first < 0 ? Buffer.alloc(0) : octets.subarray(first);
}

function write(form: Form, members: Readonly<Record<string, Buffer>>): Buffer {
  const written = Object.fromEntries(Object.entries(members).map(([name, value]) => [name, value.toString('base64')]));
  return Buffer.from(JSON.stringify({ rsa_signature: null, ecdsa_signature: null, [form]: written }));
}

function readForm(message: Buffer, form: Form, what: string): JsonObject {
  const members = readObject(message, MAX_MESSAGE_BYTES)[form];
  if (!isJsonObject(members)) throw malformed(`expecting ${form === 'rsa_signature' ? 'RSA' : 'ECDSA'} ${what}`);
  return members;
}

function nonceOf(members: JsonObject, whose: string): Buffer {
  const nonce = bytes(members['nonce'], 'nonce');
  if (nonce.length !== NONCE_BYTES) throw malformed(`invalid ${whose} nonce: ${nonce.length} bytes instead of ${NONCE_BYTES}`);
  return nonce;
}

/** Members that we do not know are left alone: a later SPIRE may send more. */
function readObject(message: Buffer, maxBytes: number | undefined): JsonObject {
  const value = parseJson(message, maxBytes === undefined ? {} : { maxBytes });
  if (!isJsonObject(value)) throw malformed('JSON that is no object');
  return value;
}

function bytes(value: JsonValue | undefined, what: string): Buffer {
  const decoded = typeof value === 'string' ? Buffer.from(value, 'base64') : undefined;
  // Node's reader passes over what is no Base64: only what it would write itself is taken
  if (decoded === undefined || decoded.toString('base64') !== value) throw malformed(`${what} is not Base64`);
  return decoded;
}

function malformed(why: string): CoreError {
  return fail('REQUEST_INVALID', why);
}
