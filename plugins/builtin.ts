/** The plugins that ship in the box: the one list of them. */
import type { Plugin } from '../core/plugin/plugin.ts';
import { agentDisk, serverDisk } from './key-manager/disk.ts';
import { agentMemory, serverMemory } from './key-manager/memory.ts';
import { agentJoinToken, serverJoinToken } from './node-attestor/join_token.ts';
import { agentX509pop } from './node-attestor/x509pop/agent.ts';
import { serverX509pop } from './node-attestor/x509pop/server.ts';
import { disk } from './upstream-authority/disk/disk.ts';
import unix from './workload-attestor/unix.ts';

export const BUILTIN: readonly Plugin[] = [
  serverDisk,
  serverMemory,
  agentDisk,
  agentMemory,
  serverJoinToken,
  agentJoinToken,
  serverX509pop,
  agentX509pop,
  disk,
  unix,
] as readonly Plugin[];
