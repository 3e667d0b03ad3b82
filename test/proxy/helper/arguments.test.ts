/** `cmd_args` is split as spiffe-helper splits it: CSV whose comma is a space. The rows are its own cases, and what Go's reader does besides. */
import { describe, expect, test } from 'vitest';
import { splitArguments } from '../../../proxy/helper/arguments.ts';

const split: readonly (readonly [what: string, line: string, words: readonly string[]])[] = [
  ['nothing', '', []],
  ['words', '-flag1 value1 -flag2 value2', ['-flag1', 'value1', '-flag2', 'value2']],
  ['quoted spaces', '-flag1 "value 1" -flag2 "value 2"', ['-flag1', 'value 1', '-flag2', 'value 2']],
  ['single quotes within double ones', `-c "echo 'hello world'"`, ['-c', "echo 'hello world'"]],
  ['an unpaired single quote', "echo Mc'Gougall", ['echo', "Mc'Gougall"]],
  ['single quotes, which protect nothing', "-c 'echo hello world'", ['-c', "'echo", 'hello', "world'"]],
  ['a doubled quote within quotes', '-c "echo ""hello world"""', ['-c', 'echo "hello world"']],
  [
    'what a shell would expand',
    '$$ $var $* ${var} {{var}} $(var) %VAR% ${env:VAR} ~ * ; |',
    ['$$', '$var', '$*', '${var}', '{{var}}', '$(var)', '%VAR%', '${env:VAR}', '~', '*', ';', '|'],
  ],
  ['an empty word in quotes', 'a "" b', ['a', '', 'b']],
  ['two spaces, which have an empty word between them', 'a  b', ['a', '', 'b']],
  ['a line feed within quotes', 'a "b\nc"', ['a', 'b\nc']],
  ['a line feed at the end', 'a b\n', ['a', 'b']],
  ['the query of its PostgreSQL example', '-p 5432 -c "SELECT pg_reload_conf();"', ['-p', '5432', '-c', 'SELECT pg_reload_conf();']],
];

const refused: readonly (readonly [what: string, line: string, why: RegExp])[] = [
  ['a quote that is not closed', '-flag1 "value 1', /not closed/],
  ['quotes within quotes', `-c "echo 'hello "cruel" world'"`, /closing quote must be followed/],
  ['a quote escaped by a backslash', '-c "echo \\"hello world\\""', /closing quote must be followed/],
  ['a quote in the middle of a word', 'a"b c', /middle of a word/],
  ['a word right behind a quote', '"a"b', /closing quote must be followed/],
  ['a second line', 'a b\nc', /second line/],
];

describe('HP-8 cmd_args', () => {
  for (const [what, line, words] of split) test(`splits ${what}`, () => expect(splitArguments(line)).toEqual(words));
  for (const [what, line, why] of refused) test(`refuses ${what}`, () => expect(() => splitArguments(line)).toThrow(why));
});
