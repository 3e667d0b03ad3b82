/** Opens the database that its first argument names, with a schema of two steps; a process of its own, so that it can be killed between them. Prints its version. */
import { Database } from '../../server/store/sqlite/database.ts';
import { systemClock } from '../../spiffe/clock.ts';

const db = new Database(process.argv[2] ?? '', systemClock, [
  'CREATE TABLE first (x)',
  'CREATE TABLE second (x); INSERT INTO second SELECT 1 FROM first',
]);
const tables = db
  .sql("SELECT group_concat(name) AS names FROM (SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name)")
  .get()?.['names'];
const version = db.sql('SELECT max(version) AS version, count(*) AS rows FROM schema_version').get();
console.log(`${String(tables)} ${JSON.stringify(version)}`);
db.close();
