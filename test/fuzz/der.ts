/** Changes that know DER: a value is changed, taken out, doubled, moved or borrowed, and every length around it fits again. */
import { der, derOid } from '../../spiffe/x509/der.ts';
import type { Mutation } from './mutations.ts';
import { PLAIN } from './mutations.ts';
import type { Random } from './random.ts';

export interface DerNode {
  tag: number;
  /** What stands before the values in a bit string: its unused bits. */
  lead: Buffer;
  contents: Buffer | DerNode[];
}

/** Undefined: not a row of values. */
export function readDer(bytes: Buffer, depth = 0): DerNode[] | undefined {
  const nodes: DerNode[] = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes[at++] as number;
    let length = bytes[at++] ?? -1;
    if (length >= 0x80) {
      const octets = length & 0x7f;
      if (octets === 0 || octets > 4 || at + octets > bytes.length) return undefined;
      length = bytes.readUIntBE(at, octets);
      at += octets;
    }
    if (length < 0 || (tag & 0x1f) === 0x1f || at + length > bytes.length) return undefined;
    const contents = bytes.subarray(at, at + length);
    at += length;
    const lead = tag === 3 ? contents.subarray(0, 1) : EMPTY;
    const holds = (tag & 0x20) !== 0 || tag === 3 || tag === 4;
    const inner = holds && contents.length > 1 && depth < 24 ? readDer(contents.subarray(lead.length), depth + 1) : undefined;
    nodes.push({ tag, lead: inner ? Buffer.from(lead) : EMPTY, contents: inner ?? Buffer.from(contents) });
  }
  return nodes;
}

export function writeDer(nodes: readonly DerNode[]): Buffer {
  return Buffer.concat(nodes.map(({ tag, lead, contents }) => der(tag, lead, Array.isArray(contents) ? writeDer(contents) : contents)));
}

const EMPTY = Buffer.alloc(0);

export const OIDS: readonly Buffer[] = [
  '2.5.29.14',
  '2.5.29.15',
  '2.5.29.17',
  '2.5.29.19',
  '2.5.29.30',
  '2.5.29.32',
  '2.5.29.35',
  '2.5.29.36',
  '2.5.29.37',
  '2.5.29.37.0',
  '1.3.6.1.5.5.7.3.1',
  '1.3.6.1.5.5.7.3.2',
  '2.5.4.3',
  '2.5.4.5',
  '1.2.840.113549.1.9.1',
  '1.2.840.113549.1.9.14',
  '1.2.840.10045.2.1',
  '1.2.840.10045.3.1.7',
  '1.3.132.0.34',
  '1.2.840.10045.4.3.2',
  '1.2.840.113549.1.1.1',
  '1.2.840.113549.1.1.10',
  '1.2.840.113549.1.1.11',
  '1.3.101.112',
].map((oid) => derOid(oid));
const TAGS = [
  1, 2, 3, 4, 5, 6, 0x0c, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1e, 0x1c, 0x30, 0x31, 0xa0, 0xa1, 0xa2, 0xa3, 0x80, 0x81, 0x82, 0xa4, 0x86, 0x87,
  0x88,
];
const VALUES = [
  ...['', '00', 'ff', '80', '0000', '7f', '0080', 'ffff', '0101ff', '010100', '00'.repeat(21), 'ff'.repeat(20)].map((hex) =>
    Buffer.from(hex, 'hex'),
  ),
  ...['500101000000Z', '491231235959Z', '00000101000000Z', '99991231235959Z', '20260229000000Z', '20260601120000Z', '260601120000Z'].map(
    (time) => Buffer.from(time),
  ),
  ...[
    'spiffe://example.org/web',
    'spiffe://example.org',
    'spiffe://other.org/web',
    'a.test',
    '.a.test',
    '*.a.test',
    'spiffe://example.org/a\0b',
  ].map((name) => Buffer.from(name)),
];

function list(nodes: readonly DerNode[]): { readonly parent: DerNode[]; readonly index: number }[] {
  return nodes.flatMap((node, index) => [
    { parent: nodes as DerNode[], index },
    ...(Array.isArray(node.contents) ? list(node.contents) : []),
  ]);
}

/** Changes one value of a tree in place. */
export function changeDer(random: Random, nodes: DerNode[], other: Buffer): void {
  const { parent, index } = random.pick(list(nodes));
  const node = parent[index] as DerNode;
  switch (random.int(10)) {
    case 0:
      node.tag = random.pick(TAGS);
      return;
    case 1:
      parent.splice(index, 1);
      return;
    case 2:
      parent.splice(index, 0, structuredClone(node));
      for (const copy of parent) revive(copy);
      return;
    case 3: {
      const to = random.int(parent.length);
      [parent[index], parent[to]] = [parent[to] as DerNode, node];
      return;
    }
    case 4: {
      const theirs = readDer(other);
      if (!theirs || theirs.length === 0) return;
      const from = random.pick(list(theirs));
      parent.splice(index, random.int(2), from.parent[from.index] as DerNode);
      return;
    }
    case 5:
      node.contents = random.pick(VALUES);
      return;
    case 6:
      parent.splice(index, 0, { tag: random.pick(TAGS), lead: EMPTY, contents: random.pick(VALUES) });
      return;
    case 7:
      parent[index] = { tag: random.pick([0x30, 0x31, 0xa0, 0xa3, 4]), lead: EMPTY, contents: [node] };
      return;
    case 8: {
      const oid = random.pick(OIDS);
      parent.splice(index, random.int(2), { tag: 6, lead: EMPTY, contents: oid.subarray(2) });
      return;
    }
    default: {
      const contents = Array.isArray(node.contents) ? writeDer(node.contents) : node.contents;
      node.contents = random.pick(PLAIN)(random, contents, other);
    }
  }
}

/** A clone's buffers are plain arrays of octets. */
function revive(node: DerNode): void {
  node.lead = Buffer.from(node.lead);
  if (Array.isArray(node.contents)) for (const inner of node.contents) revive(inner);
  else node.contents = Buffer.from(node.contents);
}

export const mutateDer: Mutation = (random, input, other) => {
  const nodes = readDer(input);
  if (!nodes || nodes.length === 0) return random.pick(PLAIN)(random, input, other);
  for (let times = 1 + random.int(3); times > 0 && nodes.length > 0; times--) changeDer(random, nodes, other);
  return writeDer(nodes);
};
