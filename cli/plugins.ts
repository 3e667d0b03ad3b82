/** The `plugins` block of a settings file matched with the plugins that there are: each block's data read by its plugin's own schema. */
import type { ZodType } from 'zod';
import { nearest } from '../core/nearest.ts';
import type { Kind, Plugin } from '../core/plugin/plugin.ts';
import type { ReadyPlugin } from '../core/plugin/ready.ts';
import { type Fault, faultsOf, type PluginBlock, readSettings } from '../core/schema.ts';
import { readSettingsFile, type SettingsFile } from '../core/settings-file.ts';
import { datastoreSettings } from '../server/settings.ts';

/** A room of the program that keeps a plugin's place in the file: name → the schema of its data. */
export type BuiltIn = Readonly<Record<string, ZodType>>;

/** Which kind a type of the settings file is in one of the programs, and how many of it there must be. */
export interface PluginType {
  readonly kind: Kind | BuiltIn;
  readonly least: number;
  readonly most: number;
}

export interface PluginTypes {
  readonly [type: string]: PluginType;
}

/** As SPIRE's server has them; without a DataStore it is SQLite in the data_dir. */
export const SERVER_TYPES: PluginTypes = {
  DataStore: { kind: { sql: datastoreSettings }, least: 0, most: 1 },
  KeyManager: { kind: 'server-key-manager', least: 1, most: 1 },
  NodeAttestor: { kind: 'server-node-attestor', least: 0, most: Number.POSITIVE_INFINITY },
  UpstreamAuthority: { kind: 'upstream-authority', least: 0, most: 1 },
};

/** As SPIRE's agent has them. */
export const AGENT_TYPES: PluginTypes = {
  KeyManager: { kind: 'agent-key-manager', least: 1, most: 1 },
  NodeAttestor: { kind: 'agent-node-attestor', least: 1, most: 1 },
  WorkloadAttestor: { kind: 'workload-attestor', least: 1, most: Number.POSITIVE_INFINITY },
};

export interface LoadedPlugins {
  readonly ready: readonly ReadyPlugin[];
  /** Everything that is wrong with them. */
  readonly faults: readonly Fault[];
}

/** @param file the file that `blocks` was read from, for places. `blocks` that are not enabled are only checked for their names. */
export async function loadPlugins(
  types: PluginTypes,
  shipped: readonly Plugin[],
  blocks: readonly PluginBlock[],
  file: SettingsFile,
): Promise<LoadedPlugins> {
  const faults: Fault[] = [];
  const ready: ReadyPlugin[] = [];
  for (const [index, block] of blocks.entries()) {
    const blame = (message: string) => faults.push({ place: block.position, path: labelOf(block), message });
    const type = Object.hasOwn(types, block.type) ? types[block.type] : undefined;
    if (!type) {
      blame(`unknown type of plugin${meant(block.type, Object.keys(types))}`);
      continue;
    }
    const { kind } = type;
    if (block.plugin_cmd !== undefined) {
      blame('external plugins (plugin_cmd) are not run by this version: take plugin_cmd out to use the plugin that ships in the box');
      continue;
    }
    const names = typeof kind === 'string' ? shipped.filter((one) => one.kind === kind).map(({ name }) => name) : Object.keys(kind);
    if (!names.includes(block.name)) {
      blame(`there is no such ${block.type}${meant(block.name, names)}; there are: ${names.join(', ') || 'none'}`);
      continue;
    }
    if (!block.enabled) continue;
    try {
      const data =
        block.plugin_data_file === undefined
          ? file.part(['plugins', index, 'plugin_data'])
          : await readSettingsFile(block.plugin_data_file, { hint: 'plugin_data_file' });
      const read = <S>(schema: ZodType<S>) => readSettings(schema, data, `${labelOf(block)}.plugin_data`);
      if (typeof kind !== 'string') {
        const schema = kind[block.name];
        if (schema) read(schema);
        continue;
      }
      const plugin = shipped.find((one) => one.kind === kind && one.name === block.name);
      if (!plugin) continue;
      const settings = read(plugin.settings);
      ready.push({ kind: plugin.kind, name: plugin.name, start: (host) => plugin.start(settings, host) });
    } catch (error) {
      const told = faultsOf(error);
      if (told.length > 0) faults.push(...told);
      else blame((error as Error).message);
    }
  }
  for (const [name, { least, most }] of Object.entries(types)) {
    const count = blocks.filter((block) => block.type === name && block.enabled).length;
    if (count >= least && count <= most) continue;
    const wanted = least === most ? `exactly ${least}` : count < least ? `at least ${least}` : `at most ${most}`;
    faults.push({
      place: file.name,
      path: 'plugins',
      message: `plugin type ${JSON.stringify(name)} constraint not satisfied: expected ${wanted} but got ${count}`,
    });
  }
  return { ready, faults };
}

function labelOf({ type, name }: PluginBlock): string {
  return `plugins.${type} ${JSON.stringify(name)}`;
}

function meant(word: string, names: readonly string[]): string {
  const near = nearest(word, names);
  return near === undefined ? '' : `: did you mean ${JSON.stringify(near)}?`;
}
