/** Keys in memory: gone with the process. The server then makes new authorities, the agent attests again. */
import type { KeyObject } from 'node:crypto';
import { z } from 'zod';
import { localSigningKey } from '../../core/local-key.ts';
import type { SigningKey } from '../../core/plugin/key-manager.ts';
import { definePlugin } from '../../core/plugin/plugin.ts';
import { generateKey } from '../../core/x509/key.ts';

const settings = z.strictObject({});

export const serverMemory = definePlugin({
  kind: 'server-key-manager',
  name: 'memory',
  settings,
  async start() {
    const keys = new Map<string, SigningKey>();
    return {
      async generate(id, type) {
        const key = localSigningKey(id, type, await generateKey(type));
        keys.set(id, key);
        return key;
      },
      get: (id) => keys.get(id),
      list: () => [...keys.values()],
    };
  },
});

export const agentMemory = definePlugin({
  kind: 'agent-key-manager',
  name: 'memory',
  settings,
  async start() {
    const keys = new Map<string, KeyObject>();
    return {
      async generate(id) {
        const key = await generateKey('ec-p256');
        keys.set(id, key);
        return key;
      },
      get: (id) => keys.get(id),
      async delete(id) {
        keys.delete(id);
      },
    };
  },
});
