/** warifu.api.server.backup.v1: a consistent copy of the datastore, for operators on the machine. */
import { fail } from '../../core/errors.ts';
import type { Log } from '../../core/log.ts';
import type { Implementation } from '../../core/rpc-types.ts';
import type { BackupDefinition } from '../../proto/gen/warifu/api/server/backup/v1/backup.ts';
import type { Store } from '../store/store.ts';

export function createBackupApi({ store, log }: { readonly store: Store; readonly log: Log }): Implementation<typeof BackupDefinition> {
  return {
    async *create() {
      if (!store.backup) throw fail('UNIMPLEMENTED', 'this datastore is backed up by its own tools');
      let bytes = 0;
      for await (const data of store.backup()) {
        bytes += data.length;
        yield { data };
      }
      log.info('Datastore backed up', { size_bytes: bytes });
    },
  };
}
