import { readFileSync, watch } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';

export function serve(folder: string) {
  const read = () => ({
    key: readFileSync(join(folder, 'svid_key.pem')),
    cert: readFileSync(join(folder, 'svid.pem')),
    ca: readFileSync(join(folder, 'svid_bundle.pem')),
  });
  const server = createServer({ ...read(), requestCert: true, rejectUnauthorized: true }, (_, res) => res.end('hello'));
  const reload = () => server.setSecureContext(read());
  return { server, reload, watcher: watch(join(folder, 'svid.pem'), reload) };
}
