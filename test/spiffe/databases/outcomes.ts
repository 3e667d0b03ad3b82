/** What comes of each attack, by who judges: the rows of docs/databases.md. */
import { ATTACKS } from '../tls/attacks.ts';
import { type Judge, type Way, WAYS } from './ways.ts';

export type Outcome =
  /** By our verdict; `one`: with the bundle of one trust domain at hand. */
  | { readonly is: 'refused'; readonly by: 'us'; readonly bundles: 'all' | 'one' }
  | { readonly is: 'refused'; readonly by: 'OpenSSL'; readonly words: RegExp }
  | { readonly is: 'let through' };

/** In the first words when an anchor may be any authority, in the second when only a root. */
const STRANGER = /unable to (?:get local issuer|verify the first) certificate/;

/** What OpenSSL refuses when its anchors are the authorities of our trust domain, and how Node says so. */
const OPENSSL: Readonly<Record<string, RegExp>> = {
  'a trust domain that has no bundle': STRANGER,
  'an unknown authority under our name': STRANGER,
  'a federated authority signing our domain': STRANGER,
  expired: /certificate has expired/,
  'not yet valid': /certificate is not yet valid/,
};

export function outcome({ judge }: Pick<Way, 'judge'>, what: string): Outcome {
  if (judge === 'us') return { is: 'refused', by: 'us', bundles: 'all' };
  const words = OPENSSL[what];
  if (words !== undefined) return { is: 'refused', by: 'OpenSSL', words };
  return judge === 'driver' ? { is: 'let through' } : { is: 'refused', by: 'us', bundles: 'one' };
}

/** Whatever else comes of who judges; held in connections.test.ts, environment.test.ts and postgres.test.ts. */
export const PROPERTIES: readonly (readonly [what: string, cells: Readonly<Record<Judge, string>>])[] = [
  [
    'a new connection shows the newest SVID, and trusts the newest bundle and no older',
    { us: 'yes', 'driver and us': 'yes', driver: 'yes' },
  ],
  [
    'there is no SVID yet, or no bundle',
    { us: 'fails, not a byte sent', 'driver and us': 'fails, not a byte sent', driver: 'fails, not a byte sent' },
  ],
  [
    'our SVID has expired, and no newer one has come',
    { us: 'fails, not a byte sent', 'driver and us': 'fails, not a byte sent', driver: '**talks, as nobody**, to a server that passes' },
  ],
  [
    "our SVID or the server's ends, or our identity is taken back, while a connection is open",
    { us: 'the connection ends', 'driver and us': '**it stays**', driver: '**it stays**' },
  ],
  [
    'an authority of the bundle is one that another has signed',
    { us: 'trusted', 'driver and us': 'trusted', driver: '**not trusted: it fails**' },
  ],
  [
    "the host's name in the server's certificate",
    { us: 'not asked for', 'driver and us': 'not asked for', driver: 'must be there; when an IP address is dialled, **`localhost` must**' },
  ],
  [
    'a connection string that says otherwise',
    { us: 'changes nothing', 'driver and us': 'pg: **it wins**, see below; mongodb: changes nothing', driver: 'changes nothing' },
  ],
  ['`NODE_TLS_REJECT_UNAUTHORIZED=0`', { us: 'changes nothing', 'driver and us': 'changes nothing', driver: 'changes nothing' }],
  ['resumed sessions, which nobody judges', { us: 'none', 'driver and us': 'none', driver: 'none' }],
];

const JUDGES: readonly Judge[] = ['us', 'driver and us', 'driver'];

const heading = (first: readonly string[]) =>
  `| ${[
    ...first,
    ...JUDGES.map((judge) => WAYS.filter((way) => way.judge === judge)).map((ways) => {
      const options = [...new Set(ways.map(({ by }) => by))].map(
        (by) =>
          `${by} (${ways
            .filter((way) => way.by === by)
            .map(({ driver }) => driver)
            .join(', ')})`,
      );
      return options.join(', ');
    }),
  ].join(' | ')} |\n|${'---|'.repeat(first.length + JUDGES.length)}`;

const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;

/** As they must stand in docs/databases.md. */
export function attackTable(): string {
  const cell = (judge: Judge, what: string) =>
    what === 'no certificate'
      ? 'TLS has no such server'
      : outcome({ judge }, what).is === 'refused'
        ? 'refused, not a byte sent'
        : '**let through**';
  return [
    heading(['what the server shows', 'reason']),
    ...ATTACKS.map(({ what, reason }) => row([what, `\`${reason}\``, ...JUDGES.map((judge) => cell(judge, what))])),
  ].join('\n');
}

export function propertyTable(): string {
  return [heading(['']), ...PROPERTIES.map(([what, cells]) => row([what, ...JUDGES.map((judge) => cells[judge])]))].join('\n');
}
