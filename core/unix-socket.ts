/** Listening on a UNIX socket whose path nobody else can take over, and telling who connects. */
import { lstat, mkdir, chmod, readlink, rename, link, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname, join, parse, resolve, sep } from 'node:path';
import { fail } from './errors.ts';
import { lockFile } from './lock-file.ts';
import type { Log } from './log.ts';
import { closeFd, type PeerCredentials, peerCredentials, requireNative } from './native.ts';

export interface UnixListenOptions {
  /** Relative ones belong to the working directory. */
  readonly path: string;
  /** Of the socket, such as 0o777: who may connect. */
  readonly mode: number;
  /** Of the directories that are missing on the way and are made here. */
  readonly directoryMode: number;
  /** Beyond it, connections are closed at once. */
  readonly maxConnections: number;
  readonly log: Log;
  /** Nothing was read from `socket` yet, and nothing will be until it is listened to. Its `pidfd` is closed with it. */
  readonly onConnection: (socket: Socket, peer: PeerCredentials) => void;
}

export interface UnixListener {
  /** Absolute. */
  readonly path: string;
  /** Takes no more connections and removes the socket. The connections that there are stay: who got them ends them. */
  close(): Promise<void>;
}

/** sun_path, with its NUL. */
const MAX_PATH_BYTES = 107;

/**
 * Throws SETTINGS_INVALID when the path can't be used safely (a directory on the way that others could change, another thing under that name),
 * FAILED_PRECONDITION when a process listens there already, UNAVAILABLE without the native edge. A dead socket is removed; a live one never.
 */
export async function listenUnix(options: UnixListenOptions): Promise<UnixListener> {
  requireNative();
  const path = resolve(options.path);
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) throw fail('SETTINGS_INVALID', `socket path ${path}: longer than ${MAX_PATH_BYTES} bytes`);
  await makeDirectories(dirname(path), options.directoryMode);
  await checkDirectories(dirname(path));
  // one of us at a time looks at what is there and takes its place, and nobody else of us comes while we listen
  const lock = lockFile(`${path}.lock`, 'the socket');
  try {
    await removeDead(path);
    const server = createServer({ pauseOnConnect: true, highWaterMark: 16 * 1024 }, (socket) => accept(socket, options));
    server.maxConnections = options.maxConnections;
    server.on('drop', () => options.log.warn('Connection refused: too many', { path, count: options.maxConnections }));
    await listening(server, path);
    await chmod(path, options.mode);
    return {
      path,
      async close() {
        if (server.listening) server.close();
        lock.close();
      },
    };
  } catch (error) {
    lock.close();
    throw error;
  }
}

function accept(socket: Socket, options: UnixListenOptions): void {
  // a reset before anybody listens must not end the program
  socket.on('error', () => {});
  let peer: PeerCredentials;
  try {
    peer = peerCredentials(socket);
  } catch (error) {
    options.log.warn('Connection refused: who connected is not known', { path: options.path, error });
    socket.destroy();
    return;
  }
  socket.once('close', () => closeFd(peer.pidfd));
  options.onConnection(socket, peer);
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((done, refuse) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      if (cause.code === 'EADDRINUSE') refuse(inUse(path));
      else refuse(fail('SETTINGS_INVALID', `socket ${path}: ${cause.message}`, { cause }));
    });
    // as many as the kernel lets wait (net.core.somaxconn): whoever comes when that is full is turned away before we hear of him
    server.listen({ path, backlog: 65_535 }, () => done());
  });
}

/** What is missing is made, with exactly this mode whatever the umask. */
async function makeDirectories(directory: string, mode: number): Promise<void> {
  if ((await kindOf(directory)) !== undefined) return;
  await makeDirectories(dirname(directory), mode);
  try {
    await mkdir(directory, { mode });
    await chmod(directory, mode);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return;
    throw fail('SETTINGS_INVALID', `socket directory ${directory}: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Who can write to a directory on the way can put his own socket in place of ours, and workloads would trust it. So each one, and each link,
 * belongs to root or to us, and others can't write to it; a sticky one (`/tmp`) may be on the way, since there each name belongs to its owner.
 * Throws SETTINGS_INVALID.
 */
export async function checkDirectories(directory: string): Promise<void> {
  const us = process.geteuid?.() ?? -1;
  const refuse = (at: string, why: string) =>
    fail('SETTINGS_INVALID', `socket directory ${at}: ${why}: who can change it could put his own socket in place of ours`);
  const { root } = parse(resolve(directory));
  let waiting = resolve(directory).slice(root.length).split(sep).filter(Boolean);
  let at = root;
  let links = 0;
  for (let first = true; first || waiting.length > 0; first = false) {
    if (!first) {
      const name = waiting.shift() ?? '';
      at = name === '..' ? dirname(at) : join(at, name);
    }
    const seen = await lstat(at);
    if (seen.uid !== 0 && seen.uid !== us) throw refuse(at, `belongs to user ${seen.uid}, must belong to root or to user ${us}`);
    if (seen.isSymbolicLink()) {
      if (++links > 40) throw refuse(at, 'too many links');
      const target = await readlink(at);
      waiting = [...target.split(sep).filter((part) => part !== '' && part !== '.'), ...waiting];
      at = target.startsWith(sep) ? root : dirname(at);
      continue;
    }
    if (!seen.isDirectory()) throw refuse(at, 'is not a directory');
    const sticky = (seen.mode & 0o1000) !== 0;
    if ((seen.mode & 0o022) === 0) continue;
    if (sticky && waiting.length > 0) continue;
    throw refuse(
      at,
      `mode ${(seen.mode & 0o7777).toString(8)} lets others write to it${sticky ? '; put the socket into a directory below it' : ''}`,
    );
  }
}

async function kindOf(path: string): Promise<'socket' | 'other' | undefined> {
  try {
    return (await lstat(path)).isSocket() ? 'socket' : 'other';
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fail('SETTINGS_INVALID', `socket path ${path}: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * Takes a dead socket away; throws FAILED_PRECONDITION for one that answers, SETTINGS_INVALID for another thing. None of ours can have come since we looked, but another program may: so it is moved aside first and looked at again before
 * it goes.
 */
export async function removeDead(path: string): Promise<void> {
  const kind = await kindOf(path);
  if (kind === undefined) return;
  if (kind === 'other') throw fail('SETTINGS_INVALID', `socket path ${path}: something that is not a socket is there`);
  if (await answers(path)) throw inUse(path);
  const aside = `${path}.${process.pid}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw fail('SETTINGS_INVALID', `socket path ${path}: ${(error as Error).message}`, { cause: error });
  }
  const alive = await answers(aside);
  if (alive) await link(aside, path).catch(() => {});
  await unlink(aside);
  if (alive) throw inUse(path);
}

/** Whether somebody listens there. What can't be told counts as yes. */
function answers(path: string): Promise<boolean> {
  return new Promise((tell) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      tell(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => tell(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'));
  });
}

function inUse(path: string): Error {
  return fail('FAILED_PRECONDITION', `socket ${path}: another process listens there`);
}
