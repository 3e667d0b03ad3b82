/** On whose account a caller is: texts of /proc/PID/cgroup as systemd, kubelet and container engines make them. */
import { describe, expect, test } from 'vitest';
import { containerOf, partyOf } from '../../agent/party.ts';

const POD = '0f1e2d3c_4b5a_6978_8796_a5b4c3d2e1f0';
const HEX = 'c0ffee00'.repeat(8);
const rows: readonly [what: string, text: string, container: string][] = [
  ['a service', '0::/system.slice/nginx.service', '/system.slice/nginx.service'],
  ['below a service', '0::/system.slice/nginx.service/made/by/itself', '/system.slice/nginx.service'],
  ['a session', '0::/user.slice/user-1000.slice/session-3.scope', '/user.slice/user-1000.slice/session-3.scope'],
  [
    'whatever a user makes below his own service manager',
    `0::/user.slice/user-1000.slice/user@1000.service/app.slice/kubepods-pod${POD}.slice/x.scope`,
    '/user.slice/user-1000.slice/user@1000.service',
  ],
  [
    'a pod, whichever of its containers (cgroup driver systemd)',
    `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${POD}.slice/cri-containerd-${HEX}.scope`,
    `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${POD}.slice`,
  ],
  [
    'a pod (cgroupfs)',
    `0::/kubepods/besteffort/pod${POD.replaceAll('_', '-')}/${HEX}`,
    `/kubepods/besteffort/pod${POD.replaceAll('_', '-')}`,
  ],
  ['a static pod', `0::/kubepods/burstable/pod${HEX.slice(0, 32)}/${HEX}`, `/kubepods/burstable/pod${HEX.slice(0, 32)}`],
  [
    'a pod below a service',
    `0::/system.slice/containerd.service/kubepods-besteffort-pod${POD}.slice:cri-containerd:${HEX}`,
    `/system.slice/containerd.service/kubepods-besteffort-pod${POD}.slice:cri-containerd:${HEX}`,
  ],
  ['a container of docker (systemd)', `0::/system.slice/docker-${HEX}.scope`, `/system.slice/docker-${HEX}.scope`],
  ['a container of docker (cgroupfs)', `0::/docker/${HEX}/init`, `/docker/${HEX}`],
  ['a path that names nothing known', '0::/one/two/three/four', '/one/two'],
  ['the root', '0::/', '/'],
  ['nothing', '', '/'],
  ['version 1', `12:pids:/docker/${HEX}\n1:name=systemd:/docker/${HEX}\n0::/`, `/docker/${HEX}`],
  ['version 1 where only one controller has groups', '5:memory:/box/1\n2:pids:/\n1:name=systemd:/\n0::/', '/box/1'],
  ['a path with a colon', '0::/system.slice/a:b.service', '/system.slice/a:b.service'],
];

describe('the container', () => {
  for (const [what, text, container] of rows) test(what, () => expect(containerOf(text)).toBe(container));
});

test('a user stands before it; one who has ended has no container', () => {
  expect(partyOf({ pid: process.pid, uid: 7 })).toMatch(/^7 \//);
  expect(partyOf({ pid: 2 ** 22 + 1, uid: 7 })).toBe('7');
});
