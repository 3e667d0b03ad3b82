/** On whose account a caller is: its user and its container. One hostile process must not use up what another container of the same user needs. */
import { readFileSync } from 'node:fs';

/** `uid` and the control group up to the pod, the service or the session; what a process could make below that by itself is left off. */
export function partyOf({ pid, uid }: { readonly pid: number; readonly uid: number }): string {
  let cgroups: string;
  try {
    cgroups = readFileSync(`/proc/${pid}/cgroup`, 'latin1');
  } catch {
    // it has ended: nobody will miss it
    return `${uid}`;
  }
  return `${uid} ${containerOf(cgroups)}`;
}

/** Of the text of /proc/PID/cgroup: the path, cut behind the first part that names a pod, a container, a service or a session (cgroups(7)). */
export function containerOf(cgroups: string): string {
  const parts = pathOf(cgroups).split('/');
  for (const form of UNITS) {
    const at = parts.findIndex((part) => form.test(part));
    if (at >= 0) return parts.slice(0, at + 1).join('/');
  }
  return parts.slice(0, DEPTH).join('/');
}

const UNITS: readonly RegExp[] = [
  // below it a user makes groups at will, and calls them what he likes
  /^user@\d+\.service$/,
  // kubelet's, with the cgroup driver systemd or cgroupfs; it may run inside a service
  /^(?:.*-)?pod[0-9a-f]{8}[0-9a-f_-]+(?:\.slice(?::.*)?)?$/,
  // systemd's, and containers of docker, containerd and podman without it
  /\.(?:service|scope)$|^(?:.*[-:])?[0-9a-f]{64}$/,
];
/** Of a path that names none of them: `/`, and two more. */
const DEPTH = 3;

/** Version 2 has one line, `0::/path`; version 1 one for each controller, of which systemd's names the unit. */
function pathOf(cgroups: string): string {
  const lines = cgroups.split('\n').filter(Boolean);
  const of = (line: string) => line.slice(line.indexOf(':', line.indexOf(':') + 1) + 1);
  const controllers = (line: string) => line.split(':', 2)[1] ?? '';
  for (const wanted of ['name=systemd', 'pids', 'memory', '']) {
    const line = lines.find((one) => controllers(one).split(',').includes(wanted));
    // where both versions are mounted the one may stand at the root
    if (line && of(line) !== '/') return of(line);
  }
  return '/';
}
