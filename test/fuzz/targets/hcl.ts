/** Settings files: HCL 1, YAML and JSON, as text and as settings of the server and the agent. The first octet says which format. */
import { parseHcl } from '../../../core/hcl.ts';
import { readSettings } from '../../../core/schema.ts';
import { expandEnv, type Format, parseSettings } from '../../../core/settings-file.ts';
import { isObject, Literal, type Plain } from '../../../core/settings-value.ts';
import { serverSettings as x509pop } from '../../../plugins/node-attestor/x509pop/settings.ts';
import { isCoded } from '../../../core/errors.ts';
import { about, type Target, wrong } from '../fuzzer.ts';
import { jsonMutation } from '../json.ts';

const FORMATS: readonly Format[] = ['hcl', 'yaml', 'json'];

const HCL = `# a comment
server {
  bind_address = "127.0.0.1" // another
  bind_port = 8081
  trust_domain = "example.org"
  ca_ttl = "24h"
  experimental { named = true, list = [1, -2.5, 0x1f, "a\\u00e9\\x41", true, { a = "b" }] }
  text = <<-END
    two
    lines
    END
  home = "\${HOME}/x$$"
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" } }
  NodeAttestor "x509pop" { plugin_data { ca_bundle_path = "/x" } }
  NodeAttestor "join_token" { plugin_data {} }
}
/* the end */
`;
const YAML = `server:
  bind_port: 8081
  trust_domain: "example.org"
  list: [1, -2.5, "a", true, null]
plugins:
  NodeAttestor:
    - join_token: { plugin_data: {} }
    - x509pop:
        plugin_data:
          ca_bundle_path: >-
            /x
`;
const JSON_TEXT =
  '{"server":{"bind_port":8081,"list":[1,-2.5,"a",true,null]},"plugins":{"NodeAttestor":[{"join_token":{"plugin_data":{}}}]}}';

export default function hcl(): Target {
  const anyJson = jsonMutation();
  const seeds: [number, string][] = [
    [0, HCL],
    [0, 'a "b" "c" { d = 1 }\na "b" "c" { d = 2 }\n'],
    [0, JSON_TEXT],
    [1, YAML],
    [1, 'a: &x 1\nb: *x\n'],
    [2, JSON_TEXT],
    [
      0,
      'ca_bundle_paths = ["/a", "/b"]\nmode = "external_pki"\nagent_path_template = "/{{ .PluginName }}/{{ .Fingerprint }}"\nmax_intermediates = 3\n',
    ],
  ];
  return {
    seeds: seeds.map(([format, text]) => Buffer.concat([Buffer.of(format), Buffer.from(text)])),
    words: [
      '{',
      '}',
      '[',
      ']',
      '=',
      ',',
      '"',
      '\\',
      '${',
      '<<',
      '<<-E\n',
      '\nE\n',
      '/*',
      '*/',
      '//',
      '#',
      '\n',
      '\r\n',
      '\uFEFF',
      '\u2028',
      '0x',
      '1e',
      '.',
      '-',
      '&a ',
      '*a',
      '!!str ',
      '---\n',
      '? ',
      ': ',
      '- ',
      '|\n',
      '>\n',
      '__proto__',
      'plugins',
      'true',
      'plugin_data',
      '{"',
      '\0',
    ],
    mutations: [(random, input, other) => Buffer.concat([input.subarray(0, 1), anyJson(random, input.subarray(1), other.subarray(1))])],
    // the reader of YAML is slow where much is nested; settings are the operator's own
    limitMs: 1500,
    async run(input) {
      const format = FORMATS[(input[0] ?? 0) % FORMATS.length] as Format;
      const text = input.subarray(1).toString();
      void expandEnv(text, (name) => name);
      if (format === 'hcl') positions(text);
      const file = await parseSettings(text, 'f', format);
      const counts = { values: 0, depth: 0, literals: 0 };
      check(file.value, 0, counts);
      if (format === 'json' && !text.includes('plugins')) same(text, file.value);
      let settings = 'no settings';
      try {
        readSettings(x509pop, file);
      } catch (error) {
        if (!isCoded(error)) throw error;
        settings = `settings with ${about(error.message.split('\n').length)} faults`;
      }
      return `${format} ${about(counts.values)} ${counts.depth} ${about(counts.literals)} ${settings}`;
    },
  };
}

/** Places lie in the text, and what is read twice is read alike. */
function positions(text: string): void {
  let items: ReturnType<typeof parseHcl>['items'];
  try {
    ({ items } = parseHcl(text));
  } catch (error) {
    if (isCoded(error)) return;
    throw error;
  }
  const lines = text.replaceAll('\r\n', '\n').split('\n');
  for (const { keys } of items) {
    for (const { name, position } of keys) {
      const at = lines[position.line - 1]?.slice(position.column - 1);
      if (at === undefined || !(at.startsWith(name) || at.startsWith('"')))
        throw wrong('a key is not where it is said to be', name, position.line, position.column);
    }
  }
}

function check(value: Plain, depth: number, counts: { values: number; depth: number; literals: number }): void {
  counts.values++;
  counts.depth = Math.max(counts.depth, depth);
  if (value instanceof Literal) {
    counts.literals++;
    if (!Number.isFinite(value.value)) throw wrong('a number that is none', value.text);
  } else if (Array.isArray(value)) for (const one of value as readonly Plain[]) check(one, depth + 1, counts);
  else if (isObject(value)) for (const one of Object.values(value)) check(one, depth + 1, counts);
}

function same(text: string, value: Plain): void {
  const theirs = JSON.stringify(JSON.parse(text));
  if (JSON.stringify(value) !== theirs) throw wrong('JSON.parse reads something else', JSON.stringify(value), theirs);
}
