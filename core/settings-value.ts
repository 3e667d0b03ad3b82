/** What a settings file says before anybody knows what its keys mean: plain values, and where each was said. */
import type { Position } from './hcl.ts';

/**
 * What a file says, before anybody knows what its keys mean:
 *
 *     server { bind_port = 8081 }      { server: { bind_port: 8081 } }
 *     a "x" { … }  a "y" { … }         { a: { x: {…}, y: {…} } }
 *     a { … }  a { … }                 { a: [ {…}, {…} ] }          the schema says whether that is one merged block or a list
 *     plugins { T "n" { … } }          { plugins: [ { type: 'T', name: 'n', plugin_data: {…}, … , position } ] }, in the file's order
 *
 * In HCL a number keeps its text, since SPIRE reads `10` as "10" where it wants words: `Literal`.
 */
export type Plain = string | number | boolean | null | Literal | readonly Plain[] | PlainObject;
export interface PlainObject {
  readonly [key: string]: Plain;
}

/** An HCL number: its value, and the text it was written as. */
export class Literal {
  readonly value: number;
  readonly text: string;

  constructor(value: number, text: string) {
    this.value = value;
    this.text = text;
  }
}

/** Where something was said: a file with line and column, or a flag of the command line (then line and column are 0). */
export interface Place extends Position {
  readonly source: string;
}

export type Path = readonly (string | number)[];

export function isObject(value: Plain | undefined): value is PlainObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Literal);
}

/** Makes plain objects and lists whose parts know their places. */
export interface Builder {
  object(entries: Iterable<readonly [key: string, value: Plain, position: Position]>): PlainObject;
  list(entries: Iterable<readonly [value: Plain, position: Position]>): readonly Plain[];
}
