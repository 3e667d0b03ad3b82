/** `cmd_args` of spiffe-helper: one line of CSV whose comma is a space. No shell: nothing else is special. */
import { fail } from '../../core/errors.ts';

/** Throws SETTINGS_INVALID for a quote that is not paired, as spiffe-helper does when it starts the command; and for a second line, which it drops. */
export function splitArguments(line: string): readonly string[] {
  const refuse = (why: string) => fail('SETTINGS_INVALID', `cmd_args ${JSON.stringify(line)}: ${why}`);
  const text = line.replaceAll('\r\n', '\n').replace(/\n+$/, '');
  const words: string[] = [];
  for (let at = 0; text !== ''; ) {
    let word: string;
    if (text[at] === '"') {
      const [whole, inner] = /"((?:[^"]|"")*)"/y[Symbol.match](text.slice(at)) ?? [];
      if (whole === undefined || inner === undefined) throw refuse('a quote is not closed: `"` is missing');
      word = inner.replaceAll('""', '"');
      at += whole.length;
      if (at < text.length && text[at] !== ' ')
        throw refuse('a closing quote must be followed by a space; a quote within quotes is written ""');
    } else {
      const end = text.indexOf(' ', at);
      word = end < 0 ? text.slice(at) : text.slice(at, end);
      if (word.includes('"')) throw refuse('a quote in the middle of a word: quotes begin a word, or are written "" within quotes');
      if (word.includes('\n')) throw refuse('it has a second line');
      at += word.length;
    }
    words.push(word);
    if (at >= text.length) break;
    at++;
  }
  return words;
}
