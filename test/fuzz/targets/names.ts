/** What is typed or configured: SPIFFE IDs, trust domains, selectors, endpoints, DNS names, path templates, PEM. The first octet says which. */
import { isIP } from 'node:net';
import { checkSelector, compareSelectors, selectorKey, selectorSet } from '../../../core/selector.ts';
import { parsePathTemplate, type TemplateValues } from '../../../core/path-template.ts';
import { parseSelector } from '../../../cli/ids.ts';
import { checkDnsName } from '../../../spiffe/x509/parts.ts';
import { TEMPLATE_FIELDS } from '../../../plugins/node-attestor/x509pop/settings.ts';
import { parseEndpoint } from '../../../spiffe/workload-api/endpoint.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { about, type Target, wrong } from '../fuzzer.ts';
import pem from '../pem.ts';

const trustDomain = TrustDomain.parse('example.org');
const name: TemplateValues = {
  CommonName: 'Web 1',
  SerialNumber: '',
  Country: ['US'],
  Organization: ['Ünï', 'x/y'],
  OrganizationalUnit: [],
  Locality: [],
  Province: [],
  StreetAddress: [],
  PostalCode: [],
};
const VALUES: TemplateValues = {
  PluginName: 'x509pop',
  TrustDomain: 'example.org',
  Fingerprint: 'a'.repeat(40),
  SerialNumberHex: '0102',
  SerialNumber: '258',
  Subject: name,
  Issuer: name,
  DNSNames: ['a.test', 'b.test'],
  URISanSelectors: new Map([['cluster', 'one']]),
};
/** SPIFFE-ID §2, written once more. */
const ID = /^spiffe:\/\/[a-z0-9._-]{1,255}(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)*$/;

const KINDS: readonly ((text: string) => string)[] = [
  function spiffeId(text) {
    let id: SpiffeId;
    try {
      id = SpiffeId.parse(text);
    } catch (error) {
      if (ID.test(text) && text.length <= 2048) throw wrong('a SPIFFE ID is refused', text);
      throw error;
    }
    if (!ID.test(text) || id.toString() !== text) throw wrong('what is no SPIFFE ID is taken for one', text);
    if (!SpiffeId.of(id.trustDomain, id.path).equals(id)) throw wrong('the parts of a SPIFFE ID are another one', text);
    return `${about(id.path.split('/').length)} ${new URL(text).host === id.trustDomain.name}`;
  },
  function trustDomains(text) {
    const parsed = TrustDomain.parseNameOrId(text);
    if (!/^[a-z0-9._-]{1,255}$/.test(parsed.name)) throw wrong('what is no trust domain is taken for one', text);
    if (TrustDomain.parse(parsed.name) !== parsed) throw wrong('one trust domain is two');
    return String(parsed.name === text);
  },
  function selectors(text) {
    const all = text.split('\n').map((line) => parseSelector(line));
    for (const one of all) {
      checkSelector(one);
      const again = parseSelector(selectorKey(one));
      if (again.type !== one.type || again.value !== one.value) throw wrong('a selector written is another one', text);
    }
    const set = selectorSet(all);
    if (new Set(all.map(selectorKey)).size !== set.length) throw wrong('a set of selectors has lost or doubled one', text);
    if (set.some((one, i) => i > 0 && compareSelectors(set[i - 1] as typeof one, one) >= 0))
      throw wrong('a set of selectors is not sorted', text);
    return `${about(set.length)} of ${about(all.length)}`;
  },
  function endpoint(text) {
    const endpoint = parseEndpoint(text);
    if ('path' in endpoint ? !endpoint.path.startsWith('/') : isIP(endpoint.host) === 0)
      throw wrong('an endpoint that could name a host', text);
    return Object.keys(endpoint).join();
  },
  function dnsName(text) {
    checkDnsName(text);
    if (!/^[A-Za-z0-9*._-]+$/.test(text)) throw wrong('what is no DNS name is taken for one', text);
    return 'DNS name';
  },
  function template(text) {
    const parsed = parsePathTemplate(text, TEMPLATE_FIELDS);
    const lead = parsed.leading({ PluginName: 'x509pop' });
    const path = parsed.render(VALUES, trustDomain);
    if (!path.startsWith('/spire/agent') || !ID.test(`spiffe://example.org${path}`)) throw wrong('a path that is none', path);
    if (lead.whole ? path !== lead.text : !path.startsWith(lead.text))
      throw wrong('a path that does not begin as was said', path, lead.text);
    return `${lead.whole} ${about(path.split('/').length)}`;
  },
];

export default async function names(): Promise<Target> {
  const files = await pem();
  const seeds: [kind: number, text: string][] = [
    [0, 'spiffe://example.org/web'],
    [0, 'spiffe://example.org'],
    [0, `spiffe://${'a'.repeat(255)}/${'b'.repeat(1700)}`],
    [1, 'example.org'],
    [1, 'spiffe://example.org/x'],
    [2, 'unix:uid:1000'],
    [2, 'k8s:ns:default\nunix:path:/bin/sh\nunix:uid:0\nunix:uid:0'],
    [3, 'unix:///run/agent/api.sock'],
    [3, 'tcp://127.0.0.1:8000'],
    [3, 'tcp://[::1]:8000'],
    [4, '*.a-b.test'],
    [5, '/{{ .PluginName }}/{{ .Fingerprint }}'],
    [5, '/{{ .PluginName }}/{{- .Subject.CommonName | lower | replace " " "-" | trunc 10 -}}/{{ index .URISanSelectors "cluster" }}'],
    [
      5,
      '/x/{{ printf "%s-%d" .SerialNumber 5 }}{{/* c */}}{{ (first .DNSNames) | default "x" }}{{ ternary "a" `b` (eq .TrustDomain "x") }}',
    ],
  ];
  const functions = [
    'lower',
    'upper',
    'trim',
    'nospace',
    'trimAll',
    'trunc',
    'substr',
    'replace',
    'contains',
    'sha256sum',
    'print',
    'printf',
    'list',
    'splitList',
    'join',
    'first',
    'last',
    'rest',
    'uniq',
    'sortAlpha',
    'has',
    'without',
    'index',
    'len',
    'default',
    'coalesce',
    'ternary',
    'eq',
    'not',
    'and',
    'or',
  ];
  return {
    seeds: [
      ...seeds.map(([kind, text]) => Buffer.concat([Buffer.of(kind), Buffer.from(text)])),
      ...files.seeds.map((seed) => Buffer.concat([Buffer.of(KINDS.length), seed])),
    ],
    words: [
      ...(files.words ?? []),
      'spiffe://',
      '/',
      '..',
      './',
      ':',
      'unix:',
      'tcp://',
      '%2f',
      '%00',
      '\0',
      '[::]',
      '{{',
      '}}',
      '{{- ',
      ' -}}',
      '/*',
      '*/',
      '|',
      '(',
      ')',
      '"',
      '`',
      '\\x41',
      '\\ud800',
      '-1',
      '99999999999999',
      '.Subject',
      '.DNSNames',
      '.URISanSelectors',
      ...functions.map((one) => ` ${one} `),
    ],
    run(input) {
      const kind = KINDS[(input[0] ?? 0) % (KINDS.length + 1)];
      if (!kind) return files.run(input.subarray(1));
      return `${kind.name} ${kind(input.subarray(1).toString(input.length % 7 === 0 ? 'latin1' : 'utf8'))}`;
    },
  };
}
