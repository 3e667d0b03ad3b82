/** `server backup`: a consistent copy of a running server's datastore, for its owner alone. */
import { randomBytes } from 'node:crypto';
import { link, open, rm } from 'node:fs/promises';
import { fail } from '../core/errors.ts';
import { BackupDefinition } from '../proto/gen/warifu/api/server/backup/v1/backup.ts';
import { type Command, defineCommand } from './command.ts';
import { withServer } from './connection.ts';
import { text } from './flags.ts';
import { serverFlags } from './sockets.ts';

export const backup: Command = defineCommand({
  summary: "Makes a copy of a running server's datastore",
  details: `
The copy is consistent, whatever is written meanwhile. It holds unspent join tokens: the file is for its owner alone (mode 0600).
It does not hold the keys of KeyManager "disk": back up that file too, or the server makes new keys.
To go back: stop the server, put the copy in the datastore's place (without the -wal and -shm files of the old one), and start it once with -restored.`,
  flags: { out: text('Path of the copy; a file that is there already is kept, and the command fails', '', 'path'), ...serverFlags },
  async run({ values }, terminal) {
    if (values.out === '') throw fail('REQUEST_INVALID', 'a path (-out) must be set');
    const fresh = `${values.out}.${randomBytes(6).toString('hex')}.tmp`;
    return await withServer(values, terminal, async (server) => {
      const asked = (error: NodeJS.ErrnoException) => {
        // the name that was asked for, not ours
        throw Object.assign(error, { syscall: 'open', path: values.out });
      };
      const file = await open(fresh, 'wx', 0o600).catch(asked);
      try {
        let bytes = 0;
        for await (const { data } of server.stream(BackupDefinition, BackupDefinition.methods.create, {})) {
          await file.write(data);
          bytes += data.length;
        }
        await file.sync();
        // unlike a rename, never over another file
        await link(fresh, values.out).catch(asked);
        terminal.out(`Backup of ${bytes} bytes written to ${values.out}\n`);
        return 0;
      } finally {
        await file.close();
        await rm(fresh, { force: true });
      }
    });
  },
});
