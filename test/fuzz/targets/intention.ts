/** Files of intentions. The first octet says which format and how the calls are chosen. What is read decides as the same sentence written once more. */
import type { Intention } from '../../../core/intention.ts';
import { readIntentions, wholeName } from '../../../core/intention-settings.ts';
import { type Format, parseSettings } from '../../../core/settings-file.ts';
import { SpiffeId, TrustDomain } from '../../../spiffe/id.ts';
import { naive } from '../../core/naive-intentions.ts';
import { about, type Target, wrong } from '../fuzzer.ts';
import { jsonMutation } from '../json.ts';

const FORMATS: readonly Format[] = ['hcl', 'yaml', 'json'];

const HCL = `trust_domain = "x.test"
intention "a" { source = "web" destination = "db" action = "allow" }
intention "b" { source = "spiffe://x.test/**" destination = "ns/*/db" action = "deny" shadow = true description = "why" }
intention "c" {
  source = "spiffe://*/**"
  destination = "spiffe://y.test/a/*/**"
  action = "allow"
}
default = "deny"
`;
const YAML = `trust_domain: x.test
intention:
  a: { source: web, destination: db, action: allow }
  b:
    source: "spiffe://x.test/*"
    destination: ns/*/db
    action: deny
    shadow: true
default: allow
`;
const JSON_TEXT =
  '{"default":"deny","trust_domain":"x.test","intention":{"a":{"source":"web","destination":"spiffe://*/**","action":"allow"},"b":{"source":"spiffe://y.test/*","destination":"db","action":"deny","shadow":true}}}';

export default function intention(): Target {
  const anyJson = jsonMutation();
  return {
    seeds: [HCL, YAML, JSON_TEXT].map((text, format) => Buffer.concat([Buffer.of(format), Buffer.from(text)])),
    words: [
      'spiffe://',
      'x.test',
      'y.test',
      '/',
      '*',
      '**',
      '/**',
      'web',
      'db',
      'intention',
      'shadow = true',
      'allow',
      'deny',
      '"',
      '{',
      '}',
      '%2f',
      '//',
      '__proto__',
      'constructor',
      'Source',
    ],
    mutations: [(random, input, other) => Buffer.concat([input.subarray(0, 1), anyJson(random, input.subarray(1), other.subarray(1))])],
    limitMs: 1500,
    async run(input) {
      const [choice = 0] = input;
      const file = await parseSettings(input.subarray(1).toString(), 'f', FORMATS[choice % FORMATS.length] as Format);
      const { intentions, trustDomain } = readIntentions(file);
      const reference = naive(intentions.rules, intentions.default);
      const ids = intentions.rules.slice(0, 40).flatMap((rule) => named(rule, choice));
      ids.push(SpiffeId.parse('spiffe://x.test/web'), SpiffeId.parse('spiffe://x.test'));
      const answers = new Set<string>();
      for (const [i, source] of ids.entries()) {
        const destination = ids[(i * 7 + choice) % ids.length] as SpiffeId;
        const [ours, theirs] = [intentions.check(source, destination), reference(source, destination)];
        if (ours.allowed !== theirs.allowed || ours.rule !== theirs.rule || ours.shadow !== theirs.shadow)
          throw wrong('the plain evaluator decides otherwise', source, destination, ours.why);
        if (!ours.rule && ours.allowed !== (intentions.default === 'allow')) throw wrong('not the default', source, destination);
        answers.add(`${ours.allowed}${ours.rule !== undefined}${ours.shadow !== undefined}`);
      }
      // a short name is what its whole form is
      if (trustDomain && wholeName('web', trustDomain) !== `spiffe://${TrustDomain.parse(trustDomain.name).name}/web`)
        throw wrong('a short name of elsewhere');
      return `${about(intentions.rules.length)} ${[...answers].sort().join()}`;
    },
  };
}

/** IDs that a pattern matches, and neighbours of theirs. */
function named({ source, destination }: Intention, choice: number): SpiffeId[] {
  return [source, destination].flatMap((pattern) => {
    const near = pattern
      .replace('spiffe://*/', 'spiffe://z.test/')
      .replace('**', choice % 2 ? 'p' : 'p/q')
      .replaceAll('*', 'p');
    return [near, near.replace('p', 'db'), `${near}/r`, near.slice(0, near.lastIndexOf('/'))]
      .filter(SpiffeId.is)
      .map((one) => SpiffeId.parse(one));
  });
}
