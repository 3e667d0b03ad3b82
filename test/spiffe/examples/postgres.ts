/** PostgreSQL through `pg`. */
import { Pool } from 'pg';
import { pgOptions } from '../../../spiffe/databases/index.ts';
import { matchId, X509Source } from '../../../spiffe/index.ts';

export const source = await X509Source.open();
export const pool = new Pool(pgOptions(source, { authorize: matchId('spiffe://example.org/postgres') })); // PGHOST, PGUSER, …
