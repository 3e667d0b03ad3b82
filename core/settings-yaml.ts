/** YAML and JSON settings: their text into plain values with places. No aliases, tags or second documents: settings say what they mean. */
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseAllDocuments } from 'yaml';
import type { Position } from './hcl.ts';
import type { Builder, Plain } from './settings-value.ts';

const MAX_DEPTH = 32;

/** @param refuse makes the error for a fault at a place. */
export function parseYaml(text: string, json: boolean, build: Builder, refuse: (message: string, position: Position) => Error): Plain {
  const lines = new LineCounter();
  const position = (offset: number | undefined): Position => {
    const { line, col } = lines.linePos(offset ?? 0);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  if (json) checkJson(text, refuse);

  let documents: ReturnType<typeof parseAllDocuments>;
  try {
    documents = parseAllDocuments(text, {
      lineCounter: lines,
      version: '1.2',
      schema: json ? 'json' : 'core',
      // it would compare each key with each other one: looked at below
      uniqueKeys: false,
      prettyErrors: false,
      strict: true,
    });
  } catch (error) {
    // the reader is recursive: text nested without end runs its stack out
    if (error instanceof RangeError) throw refuse(`nested deeper than ${MAX_DEPTH}`, { line: 1, column: 1 });
    throw error;
  }
  if (!Array.isArray(documents) || documents.length === 0) return build.object([]);
  const [document, second] = documents;
  if (second) throw refuse('a second document: a settings file is one', position(second.range?.[0]));
  const fault = document?.errors[0] ?? document?.warnings[0];
  // a stack that ran out may also come as one of its faults
  if (fault) throw refuse(/call stack/.test(fault.message) ? `nested deeper than ${MAX_DEPTH}` : fault.message, position(fault.pos[0]));

  const plain = (node: Node | null, depth: number): Plain => {
    if (node === null) return null;
    const where = position(node.range?.[0]);
    if (depth > MAX_DEPTH) throw refuse(`nested deeper than ${MAX_DEPTH}`, where);
    if (isAlias(node)) throw refuse('aliases are not read here: write the value out', where);
    if (isScalar(node)) {
      const { value } = node;
      if (typeof value === 'number' && (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))))
        throw refuse('too large a number', where);
      if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' || value === null) return value;
      throw refuse('expected text, a number, true or false', where);
    }
    if (isSeq(node))
      return build.list(
        node.items.map((item) => [plain(item as Node | null, depth + 1), position((item as Node | null)?.range?.[0])] as const),
      );
    if (!isMap(node)) throw refuse('expected keys, a list, text, a number, true or false', where);
    const keys = new Set<string>();
    return build.object(
      node.items.map(({ key, value }) => {
        if (!isScalar(key) || typeof key.value !== 'string') throw refuse('a key is text', position((key as Node | null)?.range?.[0]));
        if (keys.has(key.value)) throw refuse('Map keys must be unique', position(key.range?.[0]));
        keys.add(key.value);
        return [key.value, plain(value as Node | null, depth + 1), position(key.range?.[0])] as const;
      }),
    );
  };
  return document?.contents ? plain(document.contents, 0) : build.object([]);
}

/** JSON to the letter: YAML's reader, which then gives the places, would let much through. */
function checkJson(text: string, refuse: (message: string, position: Position) => Error): void {
  try {
    JSON.parse(text);
  } catch (error) {
    const message = (error as Error).message;
    const at = /at position (\d+)/.exec(message)?.[1];
    const before = text.slice(0, at === undefined ? 0 : Number(at)).split('\n');
    throw refuse(message.replace(/\s*(in JSON )?at position \d+.*$/s, ''), {
      line: before.length,
      column: (before.at(-1)?.length ?? 0) + 1,
    });
  }
}
