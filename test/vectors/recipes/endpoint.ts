/** Rows about the address of the Workload API. */
import type { Reason } from '../../../spiffe/errors.ts';
import type { File } from '../row.ts';
import { row } from './ids.ts';

const GO = 'go-spiffe workloadapi TestParseTargetFromAddr';
const OWN = 'SPIFFE Workload Endpoint §4';

const ROWS: readonly [name: string, source: string, text: string, outcome: { readonly sees: string } | Reason][] = [
  ['a tab', GO, '\t', 'ENDPOINT_SCHEME'],
  ['a word', GO, 'blah', 'ENDPOINT_SCHEME'],
  ['another scheme', OWN, 'https://127.0.0.1:8000', 'ENDPOINT_SCHEME'],
  ['tcp without slashes', GO, 'tcp:opaque', 'ENDPOINT_TCP_HOST'],
  ['tcp without a host', GO, 'tcp://', 'ENDPOINT_TCP_HOST'],
  ['tcp with a query', GO, 'tcp://1.2.3.4:5?whatever', 'ENDPOINT_COMPONENT'],
  ['tcp with a fragment', GO, 'tcp://1.2.3.4:5#whatever', 'ENDPOINT_COMPONENT'],
  ['tcp with a user and a path', GO, 'tcp://john:doe@1.2.3.4:5/path', 'ENDPOINT_COMPONENT'],
  ['tcp with a user', OWN, 'tcp://john@1.2.3.4:5', 'ENDPOINT_COMPONENT'],
  ['tcp with a path', GO, 'tcp://1.2.3.4:5/path', 'ENDPOINT_COMPONENT'],
  ['tcp with a name', GO, 'tcp://foo', 'ENDPOINT_TCP_HOST'],
  ['tcp with a name and a port', OWN, 'tcp://localhost:8000', 'ENDPOINT_TCP_HOST'],
  ['tcp without a port', GO, 'tcp://1.2.3.4', 'ENDPOINT_TCP_PORT'],
  ['tcp with an empty port', OWN, 'tcp://1.2.3.4:', 'ENDPOINT_TCP_PORT'],
  ['tcp with port 0', OWN, 'tcp://1.2.3.4:0', 'ENDPOINT_TCP_PORT'],
  ['tcp with a port beyond 16 bits', OWN, 'tcp://1.2.3.4:65536', 'ENDPOINT_TCP_PORT'],
  ['tcp with an address that is short', OWN, 'tcp://127.1:8000', 'ENDPOINT_TCP_HOST'],
  ['tcp', GO, 'tcp://1.2.3.4:5', { sees: '1.2.3.4 5' }],
  ['tcp over IPv6', OWN, 'tcp://[::1]:8000', { sees: '::1 8000' }],
  ['tcp over IPv6 with a zone', OWN, 'tcp://[fe80::1%25eth0]:8000', 'ENDPOINT_TCP_HOST'],
  ['unix with a relative path', GO, 'unix:opaque', 'ENDPOINT_UNIX_PATH'],
  ['unix without a path', GO, 'unix://', 'ENDPOINT_UNIX_PATH'],
  ['unix with a query', GO, 'unix://foo?whatever', 'ENDPOINT_COMPONENT'],
  ['unix with a fragment', GO, 'unix://foo#whatever', 'ENDPOINT_COMPONENT'],
  ['unix with a user', GO, 'unix://john:doe@foo/path', 'ENDPOINT_UNIX_AUTHORITY'],
  ['unix with a host', GO, 'unix://foo', 'ENDPOINT_UNIX_AUTHORITY'],
  ['unix', OWN, 'unix:///run/agent/api.sock', { sees: '/run/agent/api.sock' }],
  ['unix with one slash', 'AMB-18', 'unix:/run/agent/api.sock', { sees: '/run/agent/api.sock' }],
  ['a pipe of Windows', GO, 'npipe:pipeName', 'ENDPOINT_SCHEME'],
];

export function endpointFile(): File<'endpoint-address'> {
  return { rows: ROWS.map(([name, source, text, outcome]) => row<'endpoint-address'>(name, [source], { text }, outcome)) };
}
