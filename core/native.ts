/** The one native edge: who is at the other end of a UNIX socket, whether that process still lives, and what else Node has no word for. Linux only. */
import { closeSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import { fail } from './errors.ts';

/** A process as the kernel named it when it connected. Who asked for it closes `pidfd` with `closeFd`. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** Names this very process, whatever becomes of its number. Closed on exec. */
  readonly pidfd: number;
}

interface Native {
  readonly getsockopt: (fd: number, level: number, name: number, value: Buffer, length: [number]) => number;
  readonly pidfdOpen: (number: number, pid: number, flags: number) => number;
  readonly poll: (fds: Buffer, count: number, timeoutMs: number) => number;
  readonly flock: (fd: number, operation: number) => number;
  readonly sigmask: (how: number, set: Buffer, old: null) => number;
  readonly setrlimit: (resource: number, limits: Buffer) => number;
  readonly prctl: (option: number, a: number, b: number, c: number, d: number) => number;
  readonly getenv: (name: string) => unknown;
  readonly strlen: (text: unknown) => number;
  readonly memset: (at: unknown, byte: number, count: number) => unknown;
  readonly waitpid: (pid: number, status: null, options: number) => number;
  readonly socket: (domain: number, type: number, protocol: number) => number;
  readonly sendto: (fd: number, data: Buffer, length: number, flags: number, address: Buffer, addressLength: number) => number;
  readonly recv: (fd: number, data: Buffer, length: number, flags: number) => number;
  readonly textOf: (name: string) => string | null;
  readonly errno: () => number;
}

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** Linux 6.5. */
const SO_PEERPIDFD = 77;
/** One number on every architecture. */
const SYS_PIDFD_OPEN = 434;
const ENOPROTOOPT = 92;
const POLLIN = 1;
const EINTR = 4;

let loaded: Native | undefined;

/** Loaded when first needed: a CLI command needs none of it. Throws UNAVAILABLE where koffi is missing: then no caller can be told, and none is served. */
function native(): Native {
  if (loaded) return loaded;
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi').default;
    const libc = koffi.load(null);
    loaded = {
      getsockopt: libc.func('int getsockopt(int, int, int, _Out_ uint8_t *, _Inout_ uint32_t *)'),
      pidfdOpen: libc.func('long syscall(long, int, unsigned int)'),
      poll: libc.func('int poll(_Inout_ uint8_t *, unsigned long, int)'),
      flock: libc.func('int flock(int, int)'),
      sigmask: libc.func('int pthread_sigmask(int, uint8_t *, void *)'),
      setrlimit: libc.func('int setrlimit(int, uint8_t *)'),
      prctl: libc.func('int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)'),
      getenv: libc.func('void *getenv(const char *)'),
      strlen: libc.func('size_t strlen(void *)'),
      memset: libc.func('void *memset(void *, int, size_t)'),
      waitpid: libc.func('int waitpid(int, void *, int)'),
      socket: libc.func('int socket(int, int, int)'),
      sendto: libc.func('long sendto(int, uint8_t *, size_t, int, uint8_t *, uint32_t)'),
      recv: libc.func('long recv(int, _Out_ uint8_t *, size_t, int)'),
      textOf: libc.func('const char *getenv(const char *)'),
      errno: () => koffi.errno(),
    };
    return loaded;
  } catch (cause) {
    throw fail('UNAVAILABLE', 'could not resolve caller information: the package koffi is missing or does not fit this machine', { cause });
  }
}

/** Tries to load the native edge, so that a program can refuse at its start what it would have to refuse to every caller. Throws UNAVAILABLE. */
export function requireNative(): void {
  native();
}

/**
 * Who connected `socket` (a UNIX socket that was accepted just now), by SO_PEERCRED and SO_PEERPIDFD; before Linux 6.5 by pidfd_open.
 * Throws UNAVAILABLE when that cannot be told: the process is gone, or lives in another pid namespace.
 */
export function peerCredentials(socket: Socket): PeerCredentials {
  const { getsockopt, pidfdOpen, errno } = native();
  const fd = fdOf(socket);
  const ucred = Buffer.alloc(12);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ucred, [12]) !== 0) throw unresolved(`SO_PEERCRED failed with errno ${errno()}`);
  const [pid, uid, gid] = [ucred.readInt32LE(0), ucred.readUInt32LE(4), ucred.readUInt32LE(8)];
  if (pid <= 0) throw unresolved('it has no process id here: it lives in another pid namespace');

  const handle = Buffer.alloc(4);
  let pidfd = -1;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, handle, [4]) === 0) pidfd = handle.readInt32LE(0);
  else if (errno() === ENOPROTOOPT) pidfd = pidfdOpen(SYS_PIDFD_OPEN, pid, 0);
  if (pidfd < 0) throw unresolved(`process ${pid} is gone (errno ${errno()})`);
  if (!isAlive(pidfd)) {
    closeFd(pidfd);
    throw unresolved(`process ${pid} is gone`);
  }
  return { pid, uid, gid, pidfd };
}

/** Names the process that has this number now. Who asked closes it with `closeFd`. Throws UNAVAILABLE when there is none. */
export function openPidfd(pid: number): number {
  const { pidfdOpen, errno } = native();
  const pidfd = pidfdOpen(SYS_PIDFD_OPEN, pid, 0);
  if (pidfd < 0) throw fail('UNAVAILABLE', `there is no process ${pid} (errno ${errno()})`);
  return pidfd;
}

/** Whether the process behind `pidfd` has not ended. */
export function isAlive(pidfd: number): boolean {
  const request = Buffer.alloc(8);
  request.writeInt32LE(pidfd, 0);
  request.writeInt16LE(POLLIN, 4);
  const { poll, errno } = native();
  for (;;) {
    const ready = poll(request, 1, 0);
    // a signal of ours may come in between, even though nothing is waited for
    if (ready < 0 && errno() === EINTR) continue;
    // readable means that it ended, whether it was reaped or not; an error means that we can't tell
    return ready === 0;
  }
}

export function closeFd(fd: number): void {
  closeSync(fd);
}

/** Node has no public name for the descriptor of a socket. */
function fdOf(socket: Socket): number {
  const fd = (socket as { _handle?: { fd?: number } | null })._handle?.fd;
  if (fd === undefined || fd < 0) throw unresolved('the connection is closed');
  return fd;
}

/** SPIRE's words first. */
function unresolved(why: string): Error {
  return fail('UNAVAILABLE', `could not resolve caller information: ${why}`);
}

const LOCK_EX_NB = 6;

/** Takes the file's lock for as long as `fd` is open; the kernel lets go of it when the process ends, however it ends. False: somebody else has it. */
export function lockFd(fd: number): boolean {
  return native().flock(fd, LOCK_EX_NB) === 0;
}

const SIG_UNBLOCK = 1;
const SIGUSR1 = 10;

/** A Node started with `--disable-sigusr1` blocks the signal in every thread: from now on handlers of ours run on it, and still nothing opens an inspector. */
export function hearSigusr1(): void {
  const set = Buffer.alloc(128);
  set[(SIGUSR1 - 1) >> 3] = 1 << ((SIGUSR1 - 1) & 7);
  native().sigmask(SIG_UNBLOCK, set, null);
}

const RLIMIT_CORE = 4;
const PR_SET_DUMPABLE = 4;

/** No core file of this process, and no look into its memory, environment or descriptors for anybody but root: what it holds are keys. */
export function keepMemoryPrivate(): void {
  const { setrlimit, prctl, errno } = native();
  // soft and hard: 0
  if (setrlimit(RLIMIT_CORE, Buffer.alloc(16)) !== 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) !== 0)
    throw fail('UNAVAILABLE', `core dumps could not be switched off (errno ${errno()})`);
}

/** Takes the value of a variable out of our environment where /proc/PID/environ shows it; whoever needs it has read it before. */
export function wipeVariable(name: string): void {
  const { getenv, strlen, memset } = native();
  const value = getenv(name);
  if (value !== null) memset(value, 0, strlen(value));
}

const WNOHANG = 1;

/** Takes the exit status of a child that has ended and that nobody waits for: as process 1 we inherit others' orphans. False: there is no such child, or it lives. */
export function reapChild(pid: number): boolean {
  return native().waitpid(pid, null, WNOHANG) === pid;
}

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
const MSG_NOSIGNAL_DONTWAIT = 0x4040;
const MAX_SUN_PATH = 108;

/**
 * sd_notify(3): tells who supervises us (`READY=1`, `STOPPING=1`, `STATUS=…`, lines of them) through the socket that NOTIFY_SOCKET names, an abstract one
 * (`@name`) too. False where the variable is not set, or the word could not be delivered: nobody waits for it then. Callers that know the environment look for the
 * variable first: without it nothing native need be loaded. Throws UNAVAILABLE without the native edge.
 */
export function notifySystemd(state: string): boolean {
  const { textOf, socket, sendto } = native();
  const name = textOf('NOTIFY_SOCKET') ?? '';
  const path = Buffer.from(name.startsWith('@') ? `\0${name.slice(1)}` : name);
  if ((!name.startsWith('/') && !name.startsWith('@')) || path.length > MAX_SUN_PATH) return false;
  const address = Buffer.concat([Buffer.alloc(2), path, Buffer.alloc(name.startsWith('@') || path.length === MAX_SUN_PATH ? 0 : 1)]);
  address.writeUInt16LE(AF_UNIX);
  const fd = socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
  if (fd < 0) return false;
  try {
    const data = Buffer.from(state);
    return sendto(fd, data, data.length, MSG_NOSIGNAL_DONTWAIT, address, address.length) === data.length;
  } finally {
    closeSync(fd);
  }
}

const AF_NETLINK = 16;
const NETLINK_SOCK_DIAG = 4;
/** struct sockaddr_nl: the kernel. */
const KERNEL = Buffer.from([AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const MSG_DONTWAIT = 0x40;
let diagnostics: number | undefined;

/** One question to the kernel about sockets (sock_diag(7)) and its first answer, which is there when the question has been put. Throws UNAVAILABLE. */
export function askSocketDiagnostics(request: Buffer): Buffer {
  const { socket, sendto, recv, errno } = native();
  if (diagnostics === undefined) {
    const fd = socket(AF_NETLINK, SOCK_DGRAM_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0) throw unresolved(`the kernel tells nothing of sockets here (errno ${errno()})`);
    diagnostics = fd;
  }
  const answer = Buffer.alloc(1024);
  if (sendto(diagnostics, request, request.length, MSG_DONTWAIT, KERNEL, KERNEL.length) !== request.length)
    throw unresolved(`the kernel could not be asked about a socket (errno ${errno()})`);
  const length = recv(diagnostics, answer, answer.length, MSG_DONTWAIT);
  if (length < 0) throw unresolved(`the kernel did not answer about a socket (errno ${errno()})`);
  return answer.subarray(0, length);
}

/** Lets the C library give back what it holds and does not use; nothing where it has no word for that (musl). */
export function trimMalloc(): void {
  try {
    malloctrim ??= (createRequire(import.meta.url)('koffi') as typeof import('koffi').default)
      .load(null)
      .func('int malloc_trim(size_t)') as (pad: number) => number;
    malloctrim(0);
  } catch {
    // it only saves memory
  }
}
let malloctrim: ((pad: number) => number) | undefined;
