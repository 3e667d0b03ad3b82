/** `proxy server` and `proxy client`: ghostunnel's command line. */
import { type Command, defineCommand } from './command.ts';
import { CLIENT_FLAGS, SERVER_FLAGS } from './proxy-flags.ts';
import { runProxy } from './proxy-process.ts';
import { readProxyFlags } from './proxy-settings.ts';

const details = `
Signals: SIGHUP and SIGUSR1 read files again; SIGTERM and SIGINT accept no more and wait for connections to end (--shutdown-timeout), a second one cuts them.
Exit code 0 when all had ended by themselves, 1 when some were cut, and when the proxy could not start.
Durations have units: 90s, 1h30m. A switch is on by its name alone; --no-name and --name=false are off.

Unlike ghostunnel: a client with SVIDs must name its server (--unsafe-any-peer to insist), connections end with the identity (--rotation=keep to insist),
and TLS sessions are not resumed.`;

export const server: Command = defineCommand({
  summary: 'Takes TLS and hands plain connections to a local target: ghostunnel server',
  details: `${details}

Example: warifu proxy server --listen :8443 --target 127.0.0.1:8080 --use-workload-api --allow-uri spiffe://example.org/web`,
  flags: SERVER_FLAGS,
  twoDashes: true,
  run: ({ values, given }, terminal) => runProxy({ settings: readProxyFlags({ mode: 'server', values, given }), terminal }),
});

export const client: Command = defineCommand({
  summary: 'Takes plain local connections and hands them on over TLS: ghostunnel client',
  details: `${details}

Example: warifu proxy client --listen 127.0.0.1:5432 --target db:8443 --use-workload-api --verify-uri spiffe://example.org/db --allow-uid 1000`,
  flags: CLIENT_FLAGS,
  twoDashes: true,
  run: ({ values, given }, terminal) => runProxy({ settings: readProxyFlags({ mode: 'client', values, given }), terminal }),
});
