import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parsePathTemplate, type TemplateFields, type TemplateValues } from '../../core/path-template.ts';
import { SpiffeError } from '../../spiffe/errors.ts';
import { TrustDomain } from '../../spiffe/id.ts';

const trustDomain = TrustDomain.parse('example.org');
const fields: TemplateFields = {
  PluginName: 'string',
  Fingerprint: 'string',
  TrustDomain: 'string',
  SerialNumberHex: 'string',
  SVIDPathTrimmed: 'string',
  URISanSelectors: 'map',
  Subject: { CommonName: 'string', Organization: 'list', OrganizationalUnit: 'list' },
  DNSNames: 'list',
  Version: 'int',
};
const values: TemplateValues = {
  PluginName: 'x509pop',
  Fingerprint: '0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33',
  TrustDomain: 'example.org',
  SerialNumberHex: '0a1b2c',
  SVIDPathTrimmed: '',
  URISanSelectors: new Map([
    ['datacenter', 'us-east-1'],
    ['env', 'prod'],
  ]),
  Subject: { CommonName: 'Node One.Example.org', Organization: ['Acme', 'Org2'], OrganizationalUnit: [] },
  DNSNames: ['a.example.org', 'b.example.org'],
  Version: 3,
};
const render = (text: string, changed: TemplateValues = {}) =>
  parsePathTemplate(text, fields).render({ ...values, ...changed }, trustDomain);

/** What text/template of Go 1.26 with sprig 3.3 gives for the same values. */
const RENDERED: readonly (readonly [template: string, path: string])[] = [
  ['/{{ .PluginName }}/{{ .Fingerprint }}', '/x509pop/0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33'],
  ['/{{.PluginName}}/{{.Fingerprint}}', '/x509pop/0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33'],
  ['/{{- .PluginName -}} /x', '/x509pop/x'],
  ['/ \n {{- .PluginName -}} \t\n /x', '/x509pop/x'],
  ['/a{{/* comment }} */}}/b', '/a/b'],
  ['/a {{- /* comment */ -}} /b', '/a/b'],
  ['/{{ .SerialNumberHex | upper }}', '/0A1B2C'],
  ['/{{ .Subject.CommonName | lower | replace " " "-" }}', '/node-one.example.org'],
  ['/{{ replace "." `_` (lower .Subject.CommonName) | nospace }}', '/nodeone_example_org'],
  ['/{{ .Fingerprint | trunc 8 }}', '/0beec7b5'],
  ['/{{ trunc -8 .Fingerprint }}', '/75da8a33'],
  ['/{{ trunc 99 .Fingerprint }}', '/0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33'],
  ['/{{ trunc -40 .Fingerprint }}', '/0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33'],
  ['/a{{ trunc 0 .Fingerprint }}', '/a'],
  ['/{{ substr 2 6 .Fingerprint }}', '/eec7'],
  ['/{{ substr 2 -1 .Fingerprint }}', '/eec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33'],
  ['/{{ substr -1 4 .Fingerprint }}', '/0bee'],
  ['/{{ substr 2 999 .Fingerprint }}', '/eec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33'],
  ['/{{ trim " \\t a \\n" }}', '/a'],
  ['/{{ trimAll "x5p" .PluginName }}', '/09po'],
  ['/{{ trimPrefix "x509" .PluginName }}', '/pop'],
  ['/{{ trimSuffix "pop" .PluginName }}', '/x509'],
  ['/{{ trimPrefix "y" .PluginName }}', '/x509pop'],
  ['/{{ contains "Node" .Subject.CommonName }}', '/true'],
  ['/{{ hasPrefix "x" .PluginName }}', '/true'],
  ['/{{ hasSuffix "x" .PluginName }}', '/false'],
  ['/{{ sha1sum .TrustDomain }}', '/20116dfd6774a9e7b32eddfea3f6cb094e38fc3f'],
  ['/{{ .TrustDomain | sha256sum }}', '/bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b5'],
  ['/{{ toString 42 }}', '/42'],
  ['/{{ 42 }}', '/42'],
  ['/{{ true }}', '/true'],
  ['/{{ "lit" }}', '/lit'],
  ['/{{ `raw` }}', '/raw'],
  ['/{{ "\\x41\\u0042" }}', '/AB'],
  ['/{{ print .PluginName 1 2 true "x" 3 | nospace }}', '/x509pop12truex3'],
  ['/{{ print 1 2 | replace " " "_" }}', '/1_2'],
  ['/{{ printf "%s-%d-%v-%t-%%" .PluginName 7 .TrustDomain true | replace "%" "pc" }}', '/x509pop-7-example.org-true-pc'],
  ['/{{ join "." .Subject.Organization }}', '/Acme.Org2'],
  ['/{{ index .DNSNames 1 }}', '/b.example.org'],
  ['/{{ first .DNSNames }}', '/a.example.org'],
  ['/{{ last .DNSNames }}', '/b.example.org'],
  ['/{{ join "-" (rest .DNSNames) }}', '/b.example.org'],
  ['/{{ initial .DNSNames | join "-" }}', '/a.example.org'],
  ['/{{ reverse .DNSNames | join "-" }}', '/b.example.org-a.example.org'],
  ['/{{ splitList "." .TrustDomain | first }}', '/example'],
  ['/{{ splitList "" "abc" | join "-" }}', '/a-b-c'],
  ['/{{ sortAlpha (list "b" "a" "C") | join "" }}', '/Cab'],
  ['/{{ uniq (list "b" "a" "b") | join "" }}', '/ba'],
  ['/{{ without (list "b" "a" "c") "a" "b" | join "" }}', '/c'],
  ['/{{ compact (list "b" "" "c") | join "-" }}', '/b-c'],
  ['/{{ has "a.example.org" .DNSNames }}', '/true'],
  ['/x{{ join "-" .Subject.OrganizationalUnit }}', '/x'],
  ['/{{ .URISanSelectors.datacenter }}', '/us-east-1'],
  ['/{{ index .URISanSelectors "env" }}', '/prod'],
  ['/x{{ index .URISanSelectors "missing" }}', '/x'],
  ['/{{ default "none" (index .URISanSelectors "missing") }}', '/none'],
  ['/{{ index .URISanSelectors "env" | default "none" }}', '/prod'],
  ['/{{ len .TrustDomain }}', '/11'],
  ['/{{ len .DNSNames }}', '/2'],
  ['/{{ len .URISanSelectors }}', '/2'],
  ['/{{ coalesce .SVIDPathTrimmed "" .PluginName }}', '/x509pop'],
  ['/{{ empty .SVIDPathTrimmed }}', '/true'],
  ['/{{ empty .DNSNames }}', '/false'],
  ['/{{ ternary "yes" "no" (eq .TrustDomain "example.org") }}', '/yes'],
  ['/{{ eq .TrustDomain "a" "example.org" | ternary "yes" "no" }}', '/yes'],
  ['/{{ ne .TrustDomain "a" }}', '/true'],
  ['/{{ not (eq .TrustDomain "a") }}', '/true'],
  ['/{{ and .PluginName .TrustDomain }}', '/example.org'],
  ['/{{ or .SVIDPathTrimmed .TrustDomain }}', '/example.org'],
  ['/x{{ and .SVIDPathTrimmed .TrustDomain }}', '/x'],
  ['/x{{ or .SVIDPathTrimmed "" }}', '/x'],
  ['/{{ or (empty .DNSNames) true }}', '/true'],
  ['/{{ replace "" "-" "abc" }}', '/-a-b-c-'],
  ['/{{ lower "\u0130stanbul" }}', '/istanbul'],
  ['/{{\n.PluginName\n}}', '/x509pop'],
  ['/{{ ( .PluginName ) }}', '/x509pop'],
  ['/{{ "a" | print "b" }}', '/ba'],
  ['/{{ upper .PluginName|lower }}', '/x509pop'],
  ['/{{(upper .PluginName)|lower}}', '/x509pop'],
  ['/{{ -1 }}', '/-1'],
  ['/{{-1}}', '/-1'],
  ['/{{- 1}}', '/1'],
  ['/{{1 -}} x', '/1x'],
  ['/{{ ((.PluginName)) }}', '/x509pop'],
  ['/{{ +5 }}', '/5'],
  ['/{{ first (list "x") | upper }}', '/X'],
  ['/{{ upper (first .DNSNames) }}', '/A.EXAMPLE.ORG'],
];
for (const [template, path] of RENDERED) {
  test(`${JSON.stringify(template)} gives ${path}`, () => {
    expect(render(template)).toBe(`/spire/agent${path}`);
  });
}

/** Go refuses most of these when the first node attests; the rest would give paths that are none, or depend on what we do not offer. */
const AT_START: readonly (readonly [template: string, why: RegExp])[] = [
  ['/{{ .PluginName', /^path template, line 1, column 16: an action without its end/],
  ['/x509pop/\n{{ .Nope }}', /line 1, column 10: "\\n" cannot stand in a path/],
  ['/{{\n  .Nope }}', /line 2, column 3: there is no field \.Nope \(there are PluginName, /],
  ['/{{ .fingerprint }}', /there is no field \.fingerprint: did you mean Fingerprint\?/],
  ['/{{ .Subject.Common }}', /there is no field \.Subject\.Common/],
  ['/{{ .PluginName.X }}', /\.PluginName is string and has no field X/],
  ['/{{ .Subject }}', /a record cannot be written in a path/],
  ['/{{ .DNSNames }}', /list cannot be written in a path/],
  ['/{{ .URISanSelectors }}', /map cannot be written in a path/],
  ['/{{ . }}', /a field without a name/],
  ['/{{ lower 5 }}', /lower takes string; here it gets int/],
  ['/{{ lower .Version }}', /lower takes string; here it gets int/],
  ['/{{ trunc .Fingerprint 8 }}', /trunc takes int, string; here it gets string, int/],
  ['/{{ default 5 .PluginName }}', /default takes T, T; here it gets int, string/],
  ['/{{ lower | upper }}', /lower takes string; here it gets nothing/],
  ['/{{ lowr .PluginName }}', /the function lowr is not supported: did you mean lower\?/],
  ['/{{ regexReplaceAll "(a+)+$" .PluginName "" }}', /regexReplaceAll is not supported/],
  ['/{{ uuidv4 }}', /uuidv4 is not supported/],
  ['/{{ constructor }}', /constructor is not supported/],
  ['/{{ .constructor }}', /no field \.constructor/],
  ['/{{ .Subject.__proto__ }}', /no field \.Subject\.__proto__/],
  ['/{{ trunc 3 upper }}', /put the call of upper in parentheses/],
  ['/{{ .PluginName "x" }}', /only a function takes arguments/],
  ['/{{ .PluginName | .TrustDomain }}', /only a function can stand behind a \|/],
  ['/{{ .PluginName | }}', /a value is missing/],
  ['/{{ | upper }}', /a value is missing/],
  ['/{{ }}', /a value is missing/],
  ['/{{ () }}', /a value is missing/],
  ['/{{ (lower .PluginName }}', /a parenthesis without its end/],
  ['/{{ lower .PluginName) }}', /a parenthesis without its beginning/],
  ['/{{upper(.PluginName)}}', /white space is missing/],
  ['/{{ trunc 5"abcdefg" }}', /white space is missing/],
  ['/{{ "abc }}', /a string without its end/],
  ['/{{ `abc }}', /a string without its end/],
  ['/{{ "\\q" }}', /an escape that is not supported/],
  ['/{{ "\\ud800" }}', /not Unicode/],
  ['/{{ 010 }}', /not a plain decimal integer/],
  ['/{{ 1.5 }}', /not a plain decimal integer/],
  ['/{{ .URISanSelectors.a-b }}', /not a plain decimal integer/],
  ['/{{-.PluginName }}', /not a plain decimal integer/],
  ['/{{ if .PluginName }}x{{ end }}', /if is not supported/],
  ['/{{ range .DNSNames }}x{{ end }}', /range is not supported/],
  ['/{{ template "x" }}', /template is not supported/],
  ['/{{ $x := .PluginName }}', /variables are not supported/],
  ['/{{ /* x */ }}', /unexpected "\/"/],
  ['/{{/* x }}', /a comment without its end/],
  ['/{{{ .PluginName }}}', /unexpected "{"/],
  ['/{{ .PluginName }}}', /"}" cannot stand in a path/],
  ['/x509pop//{{ .Fingerprint }}', /"\/\/" cannot stand in a path/],
  ['/%2e/{{ .Fingerprint }}', /"%" cannot stand in a path/],
  ['/{{ printf "%s" }}', /printf has no argument for %s/],
  ['/{{ printf "%s" 1 }}', /printf has no %s for int/],
  ['/{{ printf "a" .PluginName }}', /more arguments than verbs/],
  ['/{{ printf "%x" .PluginName }}', /not %x/],
  ['/{{ printf .PluginName }}', /must be a literal/],
  ['/{{ eq .DNSNames .DNSNames }}', /lists cannot be compared/],
  ['/{{ len 5 }}', /len of int/],
  [`/{{ ${'('.repeat(40)}.PluginName${')'.repeat(40)} }}`, /more than 32 parentheses/],
  [`/${'a'.repeat(5000)}`, /longer than 4096 characters/],
];
for (const [template, why] of AT_START) {
  test(`${JSON.stringify(template.slice(0, 60))} is a fault at start`, () => {
    expect(() => parsePathTemplate(template, fields)).toThrow(
      expect.objectContaining({ code: 'SETTINGS_INVALID', message: expect.stringMatching(why) }),
    );
  });
}

/** Only the node's own values show these. */
const AT_RENDERING: readonly (readonly [template: string, why: RegExp])[] = [
  ['/x509pop/{{ .Subject.CommonName }}', /path segment characters are limited/],
  ['/x509pop/{{ .SVIDPathTrimmed }}', /trailing slash/],
  ['/x509pop/{{ .SVIDPathTrimmed }}/x', /empty segments/],
  ['{{ .PluginName }}', /leading slash/],
  ['/x509pop/{{ "." }}{{ "." }}', /dot segments/],
  ['/x509pop/{{ "a/../b" }}', /dot segments/],
  ['/x509pop/{{ .URISanSelectors.missing }}', /there is no \.URISanSelectors\.missing/],
  ['/x509pop/{{ .URISanSelectors.missing | default "x" }}', /there is no \.URISanSelectors\.missing/],
  ['/x509pop/{{ index .DNSNames 5 }}', /there is no element 5 in a list of 2/],
  ['/x509pop/{{ index .DNSNames -1 }}', /there is no element -1/],
  ['/x509pop/{{ first .Subject.OrganizationalUnit }}', /there is no element 0/],
  ['/x509pop/{{ last .Subject.OrganizationalUnit }}', /there is no element -1/],
  ['/x509pop/{{ coalesce .SVIDPathTrimmed "" }}', /every value is empty/],
  ['/x509pop/{{ substr 50 60 .Fingerprint }}', /outside of 40 bytes/],
  ['/x509pop/{{ substr 6 2 .Fingerprint }}', /outside of 40 bytes/],
  ['/x509pop/{{ substr -1 99 .Fingerprint }}', /outside of 40 bytes/],
  ['/x509pop/{{ substr -1 -1 .Fingerprint }}', /outside of 40 bytes/],
  ['/x509pop/{{ upper "stra\u00dfe" }}', /path segment characters are limited/],
  ['/x509pop/{{ lower "\u0391\u03a3" }}', /path segment characters are limited/],
  ['/x509pop/{{ trunc 2 "a\u00e9" }}', /path segment characters are limited/],
  ['/x509pop/{{ trim "x\ufeff" }}', /path segment characters are limited/],
];
for (const [template, why] of AT_RENDERING) {
  test(`${JSON.stringify(template)} is accepted at start and refused for a node of which it makes no path`, () => {
    const parsed = parsePathTemplate(template, fields);
    expect(() => parsed.render(values, trustDomain)).toThrow(why);
    expect(() => parsed.render(values, trustDomain)).toThrow(SpiffeError);
  });
}

test('nothing that a node says leads out of its place', () => {
  const template = parsePathTemplate('/x509pop/{{ .Subject.CommonName }}/{{ .URISanSelectors.env }}', fields);
  const hostile = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('..', '.', '', 'a/..', '/', 'a/b', '{{ .Fingerprint }}', '$&', 'a\0'),
  );
  fc.assert(
    fc.property(hostile, hostile, (name, env) => {
      let path: string;
      try {
        path = template.render({ ...values, Subject: { CommonName: name }, URISanSelectors: new Map([['env', env]]) }, trustDomain);
      } catch (error) {
        expect(error).toBeInstanceOf(SpiffeError);
        return;
      }
      expect(path).toBe(`/spire/agent/x509pop/${name}/${env}`);
      expect(path).toMatch(/^(\/(?!\.{1,2}(\/|$))[A-Za-z0-9._-]+)+$/);
    }),
  );
});

test('any text is a template or a fault, in short time', () => {
  const piece = fc.constantFrom(
    '{{',
    '}}',
    '{{-',
    ' -}}',
    ' ',
    '/',
    '.PluginName',
    '.',
    '|',
    '(',
    ')',
    '"',
    '`',
    'lower',
    'trunc',
    '1',
    '-',
    '/*',
    '*/',
    '\n',
    '\\',
    'a',
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      try {
        parsePathTemplate(pieces.join(''), fields);
      } catch (error) {
        expect(error).toMatchObject({ code: 'SETTINGS_INVALID' });
      }
    }),
    { numRuns: 500 },
  );
});

test('the beginning of all its paths is known before there is a node', () => {
  const leading = (template: string) => parsePathTemplate(template, fields).leading({ PluginName: 'x509pop' });
  expect(leading('/{{ .PluginName }}/{{ .Fingerprint }}')).toEqual({ text: '/spire/agent/x509pop/', whole: false });
  expect(leading('/cn/{{ .Subject.CommonName }}/x')).toEqual({ text: '/spire/agent/cn/', whole: false });
  expect(leading('/{{ .PluginName | upper }}')).toEqual({ text: '/spire/agent/X509POP', whole: true });
  expect(leading('/x{{ .PluginName | trimPrefix .TrustDomain }}')).toEqual({ text: '/spire/agent/x', whole: false });
  expect(leading('')).toEqual({ text: '/spire/agent', whole: true });
});
