/** The comparison's commands about entries, in the order in which they are typed. */
import { type Step, step } from './steps.ts';

const json = (value: unknown) => JSON.stringify(value);
const WEB = '-parentID {node} -spiffeID spiffe://example.org/web -selector {me}';
const entry = (more: object) => ({
  parent_id: '{node}',
  spiffe_id: 'spiffe://example.org/f',
  selectors: [{ type: 'unix', value: 'uid:77' }],
  ...more,
});

export const ENTRY_STEPS: readonly Step[] = [
  step('none yet', 'server entry show'),
  step('none yet, json', 'server entry show -output json'),
  step('none yet', 'server entry count'),
  step('none yet, json', 'server entry count -output json'),

  step(
    'with every flag',
    `server entry create -entryID web ${WEB} -dns web.example.org -dns www.example.org -x509SVIDTTL 600 -jwtSVIDTTL 300 -hint first -entryExpiry 4102444800`,
  ),
  step('a similar one', `server entry create ${WEB}`),
  step('a similar one, json', `server entry create ${WEB} -output json`),
  step(
    'an ID that is taken',
    'server entry create -entryID web -parentID {node} -spiffeID spiffe://example.org/other -selector unix:uid:1',
    { intended: ['takenId'] },
  ),
  step('without an ID', 'server entry create -parentID {node} -spiffeID spiffe://example.org/chosen -selector unix:uid:1'),
  step(
    'json',
    'server entry create -entryID db -parentID {node} -spiffeID spiffe://example.org/db -selector unix:uid:1 -selector unix:gid:1 -output json',
  ),
  step(
    'two dashes and equals signs',
    'server entry create --entryID=dashes --parentID={node} --spiffeID=spiffe://example.org/dashes --selector=unix:uid:5 --admin=true',
  ),
  step('admin', 'server entry create -entryID admin -parentID {node} -spiffeID spiffe://example.org/admin -selector unix:uid:2 -admin'),
  step(
    'downstream',
    'server entry create -entryID down -parentID {node} -spiffeID spiffe://example.org/down -selector unix:uid:3 -downstream',
  ),
  step(
    'stored',
    'server entry create -entryID stored -parentID {node} -spiffeID spiffe://example.org/stored -selector kms:key:a -storeSVID',
  ),
  step(
    'stored, of two types',
    'server entry create -parentID {node} -spiffeID spiffe://example.org/s2 -selector kms:key:a -selector unix:uid:1 -storeSVID',
  ),
  step(
    'attributes',
    'server entry create -entryID attr -parentID {node} -spiffeID spiffe://example.org/attr -selector unix:uid:4 -disableX509SVIDPrefetch -jwtSVIDIncludeJTI',
  ),
  step(
    'attributes, json',
    'server entry create -entryID attr2 -parentID {node} -spiffeID spiffe://example.org/attr2 -selector unix:uid:4 -jwtSVIDIncludeJTI -output json',
  ),
  step('for nodes', 'server entry create -entryID nodes -node -spiffeID spiffe://example.org/cluster -selector x509pop:subject:cn:node'),
  step(
    'for nodes, federated',
    'server entry create -node -spiffeID spiffe://example.org/cluster -selector a:b -federatesWith spiffe://other.test',
  ),
  step(
    'federated with nobody known',
    'server entry create -entryID fed0 -parentID {node} -spiffeID spiffe://example.org/fed -selector unix:uid:6 -federatesWith spiffe://nobody.test',
  ),
  step(
    'federated with itself',
    'server entry create -entryID fed1 -parentID {node} -spiffeID spiffe://example.org/fed -selector unix:uid:6 -federatesWith spiffe://example.org',
  ),
  step(
    'federated with a malformed name',
    'server entry create -parentID {node} -spiffeID spiffe://example.org/fed -selector unix:uid:6 -federatesWith spiffe://EX_AMPLE?',
  ),
  step('no flag', 'server entry create'),
  step('no parent', 'server entry create -spiffeID spiffe://example.org/x -selector a:b'),
  step('no SPIFFE ID', 'server entry create -parentID {node} -selector a:b'),
  step('negative X.509 TTL', `server entry create ${WEB} -x509SVIDTTL -1`),
  step('negative JWT TTL', `server entry create ${WEB} -jwtSVIDTTL -1`),
  step('a TTL that is too large', `server entry create ${WEB} -x509SVIDTTL 4294967296`),
  step('a TTL in words', `server entry create ${WEB} -x509SVIDTTL soon`, { intended: ['usage'] }),
  step('a TTL beyond 64 bits', `server entry create ${WEB} -x509SVIDTTL 99999999999999999999`, { intended: ['usage'] }),
  step(
    'a TTL of a year',
    'server entry create -entryID year -parentID {node} -spiffeID spiffe://example.org/year -selector a:b -x509SVIDTTL 31536000',
  ),
  step('a switch that is neither on nor off', `server entry create ${WEB} -admin=maybe`, { intended: ['usage'] }),
  step('a SPIFFE ID without scheme', 'server entry create -parentID {node} -spiffeID example.org/x -selector a:b'),
  step('a SPIFFE ID with a slash at its end', 'server entry create -parentID {node} -spiffeID spiffe://example.org/x/ -selector a:b'),
  step('a SPIFFE ID with a dot segment', 'server entry create -parentID {node} -spiffeID spiffe://example.org/../x -selector a:b'),
  step('a SPIFFE ID with a query', 'server entry create -parentID {node} -spiffeID spiffe://example.org/x?y=1 -selector a:b'),
  step('a SPIFFE ID in capitals', 'server entry create -parentID {node} -spiffeID spiffe://EXAMPLE.org/x -selector a:b'),
  step('a SPIFFE ID of another trust domain', 'server entry create -parentID {node} -spiffeID spiffe://other.test/x -selector a:b'),
  step('a SPIFFE ID without path', 'server entry create -entryID bare -parentID {node} -spiffeID spiffe://example.org -selector a:b'),
  step(
    'a reserved SPIFFE ID',
    'server entry create -entryID reserved -parentID {node} -spiffeID spiffe://example.org/spire/agent/x -selector a:b',
  ),
  step(
    'a parent of another trust domain',
    'server entry create -parentID spiffe://other.test/p -spiffeID spiffe://example.org/x -selector a:b',
  ),
  step('a malformed parent', 'server entry create -parentID nobody -spiffeID spiffe://example.org/x -selector a:b'),
  step('a selector without colon', 'server entry create -parentID {node} -spiffeID spiffe://example.org/x -selector unix'),
  step('a selector without type', 'server entry create -parentID {node} -spiffeID spiffe://example.org/x -selector :v'),
  step('a selector without value', 'server entry create -parentID {node} -spiffeID spiffe://example.org/x -selector unix:'),
  step('an empty DNS name', "server entry create -parentID {node} -spiffeID spiffe://example.org/x -selector a:b -dns ''"),
  step(
    'a wildcard DNS name',
    'server entry create -entryID wild -parentID {node} -spiffeID spiffe://example.org/wild -selector a:b -dns *.example.org',
  ),
  step('a malformed ID', 'server entry create -entryID a/b -parentID {node} -spiffeID spiffe://example.org/x -selector a:b'),
  step(
    'a hint of 1,025 characters',
    `server entry create -parentID {node} -spiffeID spiffe://example.org/x -selector a:b -hint ${'h'.repeat(1025)}`,
  ),
  step('an unknown flag', `server entry create ${WEB} -ttl 5`, { intended: ['usage'] }),
  step('a flag without its value', 'server entry create -parentID', { intended: ['usage'] }),
  step('an unknown output', `server entry create ${WEB} -output xml`, { intended: ['usage'] }),
  step('an empty output', `server entry create ${WEB} -output=`, { intended: ['usage'] }),
  step('two outputs', `server entry create ${WEB} -output json -output pretty`, { intended: ['usage'] }),
  step('output in capitals', 'server entry count -output JSON'),
  step('a word too many', 'server entry count -output pretty extra', { intended: ['tooMany'] }),

  step('from a file that is not there', 'server entry create -data {dir}/nowhere.json'),
  step('from no JSON', 'server entry create -data -', { input: 'entries:', intended: ['json'] }),
  step('from nothing', 'server entry create -data -', { input: '', intended: ['json'] }),
  step('from an empty object', 'server entry create -data -', { input: '{}' }),
  step('from an empty list, json', 'server entry create -data - -output json', { input: '{"entries":[]}' }),
  step('from standard input', 'server entry create -data -', {
    input: json({
      entries: [
        entry({ entry_id: 'f1', hint: 'a' }),
        entry({ entry_id: 'f2', spiffe_id: 'spiffe://example.org/g', x509_svid_ttl: 60, dns_names: ['g.example.org'] }),
      ],
    }),
  }),
  step('half of them are there', 'server entry create -data -', {
    input: json({ entries: [entry({}), entry({ entry_id: 'f3', spiffe_id: 'spiffe://example.org/h' })] }),
  }),
  step('half of them are there, json', 'server entry create -data - -output json', {
    input: json({ entries: [entry({}), entry({ entry_id: 'f4', spiffe_id: 'spiffe://example.org/i' })] }),
  }),
  step('from a file with a malformed SPIFFE ID', 'server entry create -data -', {
    input: json({ entries: [entry({ spiffe_id: 'nobody' })] }),
    intended: ['place'],
  }),
  step('from a file without parent', 'server entry create -data -', {
    input: json({ entries: [{ spiffe_id: 'spiffe://example.org/x', selectors: [] }] }),
    intended: ['place'],
  }),
  step('from a file without selectors', 'server entry create -data -', { input: json({ entries: [entry({ selectors: [] })] }) }),
  step('from a file with a key that is not known', 'server entry create -data -', {
    input: json({ entries: [entry({ entry_id: 'f9', dns_name: ['x'] })] }),
    intended: ['unknownKey'],
  }),
  step('from a file with a wrong type', 'server entry create -data -', {
    input: json({ entries: [entry({ x509_svid_ttl: '60' })] }),
    intended: ['json'],
  }),

  step('all', 'server entry show'),
  step('all, json', 'server entry show -output json'),
  step('by ID', 'server entry show -entryID web'),
  step('by ID, json', 'server entry show -entryID web -output json'),
  step('by an ID that is not there', 'server entry show -entryID nowhere'),
  step('by an ID that is not there, json', 'server entry show -entryID nowhere -output json'),
  step('by ID and more', 'server entry show -entryID web -spiffeID spiffe://example.org/web'),
  step('by SPIFFE ID', 'server entry show -spiffeID spiffe://example.org/db'),
  step('by a SPIFFE ID that has none', 'server entry show -spiffeID spiffe://example.org/none'),
  step('by a malformed SPIFFE ID', 'server entry show -spiffeID none'),
  step('by parent', 'server entry show -parentID spiffe://example.org/spire/server'),
  step('by a malformed parent', 'server entry show -parentID spiffe://'),
  step('by hint', 'server entry show -hint first'),
  step('by downstream', 'server entry show -downstream'),
  step('by selector', 'server entry show -selector unix:uid:1'),
  ...['exact', 'any', 'superset', 'subset'].map((mode) =>
    step(`by selectors, ${mode}`, `server entry show -selector unix:uid:1 -selector unix:gid:1 -matchSelectorsOn ${mode}`),
  ),
  step('by selectors, an unknown mode', 'server entry show -selector unix:uid:1 -matchSelectorsOn some'),
  step('by a malformed selector', 'server entry show -selector unix'),
  step('by federation, none', 'server entry show -federatesWith spiffe://other.test'),
  step('by federation, an unknown mode', 'server entry show -federatesWith spiffe://other.test -matchFederatesWithOn some'),
  step('by a malformed trust domain', 'server entry show -federatesWith spiffe://'),

  step('all', 'server entry count'),
  step('all, json', 'server entry count -output json'),
  step('by selector', 'server entry count -selector unix:uid:4'),
  step('by parent', 'server entry count -parentID spiffe://example.org/spire/server'),
  step('by SPIFFE ID', 'server entry count -spiffeID spiffe://example.org/web'),
  step('by hint', 'server entry count -hint first'),
  step('by downstream', 'server entry count -downstream'),
  step('by a malformed SPIFFE ID', 'server entry count -spiffeID none'),
  step('by a malformed selector', 'server entry count -selector unix'),
  step('by selectors, an unknown mode', 'server entry count -selector unix:uid:1 -matchSelectorsOn some'),

  step('without ID', `server entry update ${WEB}`),
  step('without selector', 'server entry update -entryID db'),
  step('without parent', 'server entry update -entryID db -selector a:b -spiffeID spiffe://example.org/db'),
  step('one that is not there', `server entry update -entryID nowhere -parentID {node} -spiffeID spiffe://example.org/y -selector a:b`),
  step(
    'one that is not there, json',
    `server entry update -entryID nowhere -parentID {node} -spiffeID spiffe://example.org/y -selector a:b -output json`,
  ),
  step(
    'one',
    'server entry update -entryID db -parentID {node} -spiffeID spiffe://example.org/db -selector unix:uid:9 -x509SVIDTTL 120 -hint second',
  ),
  step('one, json', 'server entry update -entryID db -parentID {node} -spiffeID spiffe://example.org/db -selector unix:uid:9 -output json'),
  step('one to a malformed SPIFFE ID', 'server entry update -entryID db -parentID {node} -spiffeID db -selector unix:uid:9'),
  step(
    'one attribute',
    'server entry update -entryID attr -parentID {node} -spiffeID spiffe://example.org/attr -selector unix:uid:4 -jwtSVIDIncludeJTI=false',
    { intended: ['switchOff'] },
  ),
  step('no attribute', 'server entry update -entryID attr2 -parentID {node} -spiffeID spiffe://example.org/attr2 -selector unix:uid:4'),
  step(
    'attributes of one that is not there',
    'server entry update -entryID nowhere -parentID {node} -spiffeID spiffe://example.org/attr -selector unix:uid:4 -jwtSVIDIncludeJTI',
  ),
  step('from standard input', 'server entry update -data -', {
    input: json({ entries: [entry({ entry_id: 'f1', hint: 'b' }), entry({ entry_id: 'nowhere' })] }),
  }),
  step(
    'federated with nobody known',
    'server entry update -entryID db -parentID {node} -spiffeID spiffe://example.org/db -selector unix:uid:9 -federatesWith spiffe://nobody.test',
  ),

  step('no flag', 'server entry delete'),
  // a stock agent that is told of it fails at every synchronization from then on
  step('one that federates with itself', 'server entry delete -entryID fed1'),
  step('one that is not there', 'server entry delete -entryID nowhere'),
  step('one that is not there, json', 'server entry delete -entryID nowhere -output json'),
  step('one', 'server entry delete -entryID year'),
  step('one, json', 'server entry delete -entryID wild -output json'),
  step('a file', 'server entry delete -file -', { input: '{"ids":["f1","f2"]}' }),
  step('a file, half of it there', 'server entry delete -file -', { input: '{"ids":["f3","f1"]}' }),
  step('a file, none of it there', 'server entry delete -file -', { input: '{"ids":["f3","f1"]}' }),
  step('a file, json', 'server entry delete -file - -output json', { input: '{"ids":["f4","f1"]}' }),
  step('a file with nothing', 'server entry delete -file -', { input: '{}' }),
  step('a file that is no JSON', 'server entry delete -file -', { input: 'f3', intended: ['json'] }),
  step('a file that is not there', 'server entry delete -file {dir}/nowhere.json'),
];

/** Of an agent that has just attested, and is banned before what it holds has ended. */
export const BANNED_STEPS: readonly Step[] = [
  step('one', 'server agent ban -spiffeID {guest}'),
  step('one that is banned', 'server agent list -banned true'),
  step('one that is banned', 'server agent purge'),
  step('one that is banned, json', 'server agent purge -output json'),
  step('one that is banned', 'server agent show -spiffeID {guest}'),
];

/** The last: after them, the four houses are no longer alike. */
export const PARTING_STEPS: readonly Step[] = [
  step(
    'a selector twice',
    'server entry create -entryID twice -parentID {node} -spiffeID spiffe://example.org/twice -selector a:b -selector a:b',
    { intended: ['selectorTwice'] },
  ),
  step('a malformed DNS name', 'server entry create -parentID {node} -spiffeID spiffe://example.org/x -selector a:b -dns not_a/name', {
    intended: ['dns'],
  }),
  step(
    'one to a malformed DNS name',
    'server entry update -entryID db -parentID {node} -spiffeID spiffe://example.org/db -selector unix:uid:9 -dns a/b',
    { intended: ['dns'] },
  ),
  step('another', 'server entry create -entryID another -parentID {node} -spiffeID spiffe://example.org/f -selector unix:uid:77'),
  step(
    'one to what another is',
    'server entry update -entryID db -parentID {node} -spiffeID spiffe://example.org/f -selector unix:uid:77',
    { intended: ['updateToSimilar'] },
  ),
  step('pem', 'server bundle set -id spiffe://zeta.test', { input: '{root}' }),
  step('pem', 'server bundle set -id spiffe://alpha.test', { input: '{root}' }),
  step('in which order', 'server bundle list', { intended: ['order'] }),
];
