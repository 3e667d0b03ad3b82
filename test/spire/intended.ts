/** Where our command line, server or agent answers otherwise than SPIRE's on purpose: why, and what it comes to. Nothing else may differ. */
import type { Output } from '../e2e/house.ts';
import type { Side } from './pair.ts';

export type Told = Pick<Output, 'code' | 'stdout' | 'stderr'>;

/** Whose command line asked whose server, and agent. */
export interface Who {
  readonly cli: Side;
  readonly server: Side;
}

export interface Intended {
  /** For the table, and for docs/coming-from-spire.md. */
  readonly why: string;
  /** SPIRE's own answer is now one and now another: the difference need not show itself. */
  readonly sometimes?: boolean;
  /** Takes away what this reason explains and no more, from each of the four answers. */
  settle(told: Told, who: Who): Told;
}

type By = keyof Who | 'either';
const sideOf = (by: By, { cli, server }: Who): Side => (by === 'either' ? (cli === 'warifu' ? cli : server) : by === 'cli' ? cli : server);

export const textOf = ({ code, stdout, stderr }: Told) => `exit code ${code}\n${stdout}\n--- stderr\n${stderr}`;

/** Each side says its own; exit code and all. */
function says(by: By, why: string, patterns: Readonly<Record<Side, RegExp>>): Intended {
  return {
    why,
    settle: (told, who) => (patterns[sideOf(by, who)].test(textOf(told)) ? { code: 0, stdout: 'as intended', stderr: '' } : told),
  };
}

/** The same ends with the same exit code, and only the words on stderr are each side's own. */
function words(by: By, why: string, patterns: Readonly<Record<Side, RegExp>>): Intended {
  return { why, settle: (told, who) => (patterns[sideOf(by, who)].test(told.stderr) ? { ...told, stderr: 'as intended' } : told) };
}

/** A part of what ours says, said as SPIRE's. */
function part(by: By, why: string, ours: RegExp, theirs: string): Intended {
  const replaced = (text: string) => text.replace(ours, theirs);
  return {
    why,
    settle: (told, who) =>
      sideOf(by, who) === 'warifu' ? { ...told, stdout: replaced(told.stdout), stderr: replaced(told.stderr) } : told,
  };
}

/** Said alike by everybody once it is rewritten. */
function rewritten(why: string, rewrite: (text: string) => string, sometimes = false): Intended {
  return { why, sometimes, settle: (told) => ({ ...told, stdout: rewrite(told.stdout), stderr: rewrite(told.stderr) }) };
}

const OWN_WORDS = 'the same fault in our words, which name the place: SPIRE passes on the words of its libraries';

export const INTENDED = {
  // ---- the command line
  usage: rewritten('after a flag that is wrong SPIRE prints all flags of the command, we a line that says how to see them', (text) =>
    text.replace(/(^[^\n]*\n)(Usage of [^]*|Type "warifu [^\n]*\n)$/, '$1'),
  ),
  help: {
    why: 'help and lists of commands are our own; help that was asked for goes to stdout, as its exit code 0 says',
    settle: ({ code, stdout, stderr }) =>
      /^\s*Usage( of|:) |^This command is accessed/m.test(stdout + stderr)
        ? { code, stdout: 'help', stderr: '' }
        : { code, stdout, stderr },
  },
  version: {
    why: 'the version is data, so it goes to stdout; SPIRE has it on stderr',
    settle: ({ code, stdout, stderr }) =>
      /^\d+\.\d+\.\d+\S*\n$/.test(stdout + stderr) ? { code, stdout: 'version', stderr: '' } : { code, stdout, stderr },
  },
  tooMany: says('cli', 'a word that no flag takes is refused: SPIRE passes it over, and every flag behind it', {
    spire: /^exit code 0\n\d+ registration entries\n/,
    warifu: /^exit code 1\n\n--- stderr\nunexpected argument "extra"/,
  }),
  durationWords: rewritten('a duration that cannot be read is told with what is wrong with it', (text) =>
    text.replace(/(invalid value "\w+" for flag -\w+: ).*/, '$1<why>'),
  ),
  negative: says('either', 'a negative lifetime is refused; SPIRE takes it for the default one', {
    spire: /^exit code 0\n(X509-SVID:|<token )/,
    warifu: /^exit code 1\n[^]*(for flag -ttl: must not be negative|desc = ttl is negative)\n/,
  }),
  negativePurge: says('cli', 'a negative -expiredFor is refused: SPIRE purges agents by it whose SVIDs are still good', {
    spire: /^exit code 0\nFound \d+ expired agents?\n/,
    warifu: /^exit code 1\n[^]*for flag -expiredFor: must not be negative\n/,
  }),
  switchOff: part(
    'cli',
    'a switch of `entry update` that is off by name is off; SPIRE keeps what the entry had',
    /(DisableX509SvidPrefetch : true\n)(?!JwtSvid)/,
    '$1JwtSvidIncludeJti       : true\n',
  ),
  socketPath: rewritten('the path of a socket is told as it was given; SPIRE tells `//` before it', (text) =>
    text.replaceAll('dial unix //', 'dial unix '),
  ),
  json: words('cli', OWN_WORDS, {
    spire: /^Error: (invalid character |unexpected end of JSON input|json: cannot unmarshal )/,
    warifu: /^Error: (the data is no JSON: |entries\[0\]\.x509_svid_ttl: expected a whole number, found "60")/,
  }),
  place: part('cli', 'what is wrong in a file is told with its place', /^Error: entries\[0\]: /m, 'Error: '),
  unknownKey: words('cli', 'a key that is not known is refused, with the nearest right name', {
    spire: /^Failed to create the following entry \(code: AlreadyExists/,
    warifu: /^Error: entries\[0\]: unknown key "dns_name": did you mean "dns_names"\?\n$/,
  }),
  date: words('cli', OWN_WORDS, {
    spire: /^Error: date is not valid: parsing time "tomorrow" as /,
    warifu: /^Error: date is not valid: "tomorrow" is not of the form "2006-01-02 15:04:05 -0700 -07"\n$/,
  }),
  bundleWords: words('cli', OWN_WORDS, {
    spire: /^Error: unable to parse to spiffe bundle: spiffebundle: /,
    warifu: /^Error: unable to parse to spiffe bundle: bundle of \w+\.test: /,
  }),
  interrupted: {
    why: 'a watch that is interrupted ends with exit code 130 and says nothing more; in SPIRE that is an error',
    settle: ({ code, stdout, stderr }) => {
      const before = stdout.replace(/\n(rpc error: code = Canceled desc = context canceled\n)+$/, '');
      return code === (before === stdout ? 130 : 1) ? { code: 0, stdout: before, stderr } : { code, stdout, stderr };
    },
  },
  settings: words('cli', 'everything that is wrong in a settings file is told at once, with line and nearest right name', {
    spire: /unable to decode configuration at |: unknown configuration detected\n$/,
    warifu: /(^|invalid: )<dir>\/\w+\.conf:\d+:\d+: /,
  }),
  dnsCli: says('either', 'a DNS name that is none is refused', {
    spire: /^exit code 0\n[^]*DNS:a\/b/,
    warifu: /^exit code 1\n[^]*"a\/b" is not a valid DNS name\n/,
  }),

  // ---- the server
  dns: says('server', 'a DNS name that is none is refused', {
    spire: /^exit code 0\n[^]*DNS name +: (not_a\/name|a\/b)\n/,
    warifu:
      /^exit code 1\n[^]*\(code: InvalidArgument, msg: "failed to convert entry: invalid DNS name: \\"(not_a\/name|a\/b)\\" is not a valid DNS name"\)/,
  }),
  database: rewritten('SPIRE names its database in texts', (text) =>
    text.replace('failed to delete federated bundle: datastore-sql: cannot', 'failed to delete federated bundle: cannot'),
  ),
  takenId: part(
    'server',
    'SPIRE passes on the words of its database; the code is the same',
    /msg: "similar entry already exists"/,
    'msg: "failed to create entry: datastore-sql: UNIQUE constraint failed: registered_entries.entry_id"',
  ),
  selectorTwice: says('server', 'selectors are a set: one that stands there twice is one. SPIRE fails with the words of its database', {
    spire: /^exit code 1\n[^]*UNIQUE constraint failed: selectors/,
    warifu: /^exit code 0\nEntry ID +: twice\n/,
  }),
  updateToSimilar: says('server', 'an entry cannot be updated to what another one is, as none can be created so', {
    spire: /^exit code 0\nEntry ID +: db\n/,
    warifu: /^exit code 1\n[^]*\(code: AlreadyExists, msg: "failed to update entry: similar entry already exists"\)/,
  }),
  order: says('server', 'lists are in the order of names, in SPIRE in the order in which things were made', {
    spire: /\* third\.test\n[^]*\* zeta\.test\n[^]*\* alpha\.test\n/,
    warifu: /\* alpha\.test\n[^]*\* third\.test\n[^]*\* zeta\.test\n/,
  }),
  dissociated: part('server', 'an entry that loses a trust domain has a new revision', /^(Revision +: )1$/m, '$10'),
  emptyAudience: part(
    'server',
    'an audience that is empty is the fault of him who asks: InvalidArgument, not Internal',
    /InvalidArgument desc = at least one audience is required/,
    'Internal desc = failed to sign JWT-SVID: invalid JWT-SVID audience: cannot be empty',
  ),

  // ---- the agent
  emptyAudienceAgent: words('server', 'an empty audience is refused at once; SPIRE asks its server for it until the time is over', {
    spire: /desc = (context deadline exceeded|could not fetch JWT-SVID: [^\n]*cannot be empty)\n$/,
    warifu: /desc = audience must be specified\n$/,
  }),
  jwks: rewritten('JWKS have no blanks between their parts', (text) =>
    text.replace(/\{\s*"keys":[^]*?\n\}|\{"keys":[^\n]*?\]\}/g, (set) => set.replace(/\s+(?=(?:[^"]*"[^"]*")*[^"]*$)/g, '')),
  ),
  ended: part('server', 'of a token that has ended it is told when it did', /(token has expired): it was good until <time>/, '$1'),
  token: words('server', OWN_WORDS, {
    spire: /^SVID is not valid: (unable to parse JWT token: |go-jose|no keys found for trust domain "nobody\.test")/,
    warifu:
      /^SVID is not valid: (not a JWS in compact serialization|the signature is not that of a JWT authority|no JWT bundle found for trust domain "nobody\.test")/,
  }),

  // ---- SPIRE's own answers are not always the same
  mapOrder: rewritten(
    "federated trust domains and bundles are sorted; SPIRE's order is random",
    (text) =>
      text
        .replace(/(\[(?:spiffe:\/\/)?\w+\.test\][^\n]*\n)+/g, (lines) =>
          [...lines.matchAll(/[^\n]*\n[^\n]*\n/g)]
            .map(([pair]) => pair)
            .sort()
            .join(''),
        )
        .replace(/(bundle\(spiffe:[^\n]*\n\t[^]*?\n(?=bundle|$))+/g, (all) =>
          all
            .split(/(?=bundle\()/)
            .sort()
            .join(''),
        ),
    true,
  ),
  claims: rewritten(
    "the blanks in claims: SPIRE's library puts them where it likes",
    (text) => text.replace(/^Claims +: .*$/m, (line) => line.replaceAll(', ', ',')),
    true,
  ),
} as const satisfies Readonly<Record<string, Intended>>;

export type Reason = keyof typeof INTENDED;
