/** Settings of a daemon: its file, with the command line's flags on top, read whole or refused with every fault at once. */
import type { ZodType } from 'zod';
import type { Plugin } from '../core/plugin/plugin.ts';
import type { ReadyPlugin } from '../core/plugin/ready.ts';
import { type Fault, faultsOf, invalid, type PluginBlock, readSettings } from '../core/schema.ts';
import { readSettingsFile, type SettingsFile } from '../core/settings-file.ts';
import { isObject, type Path } from '../core/settings-value.ts';
import { type LoadedPlugins, loadPlugins, type PluginTypes } from './plugins.ts';
import type { Terminal } from './terminal.ts';

/** What the flags say: each that was given, the setting it stands for, its value. */
export interface Override {
  /** With its dash: `-serverPort`. */
  readonly flag: string;
  readonly path: Path;
  readonly value: string | number | boolean;
}

/** The overrides that a command line makes. `settings`: flag → the setting it stands for. */
export function overridesOf(
  settings: Readonly<Record<string, Path>>,
  values: Readonly<Record<string, unknown>>,
  given: ReadonlySet<string>,
): Override[] {
  return Object.entries(settings).flatMap(([name, path]) => {
    const value = values[name];
    if (!given.has(name) || (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean')) return [];
    // as in SPIRE: an empty text, a zero and a switch that is off say nothing, and the file counts
    return value === '' || value === 0 || value === false ? [] : [{ flag: `-${name}`, path, value }];
  });
}

export interface SettingsSource {
  readonly path: string;
  readonly expandEnv: boolean;
  readonly overrides: readonly Override[];
}

export interface LoadedSettings<S> {
  readonly settings: S;
  readonly plugins: readonly ReadyPlugin[];
  readonly file: SettingsFile;
}

/**
 * Command line over file over default. Throws SETTINGS_INVALID with all faults of the file and of its plugins' data.
 * @param check further faults that need more than the schema sees, such as files that must be there
 */
export async function loadSettings<S extends { readonly plugins: readonly PluginBlock[] }>(
  schema: ZodType<S>,
  types: PluginTypes,
  shipped: readonly Plugin[],
  source: SettingsSource,
  terminal: Terminal,
): Promise<LoadedSettings<S>> {
  const lookup = source.expandEnv ? (name: string) => terminal.env[name] : undefined;
  let file = await readSettingsFile(source.path, lookup ? { lookup } : {});
  for (const { flag, path, value } of source.overrides) file = file.set(path, value, flag);

  let settings: S | undefined;
  const faults: Fault[] = [];
  try {
    settings = readSettings(schema, file);
  } catch (error) {
    const told = faultsOf(error);
    if (told.length === 0) throw error;
    faults.push(...told);
  }
  // the plugins' data is read even when the rest is at fault: all at once
  const blocks = settings?.plugins ?? blocksOf(file);
  const loaded: LoadedPlugins = await loadPlugins(types, shipped, blocks, file);
  faults.push(...loaded.faults.filter(({ place, path }) => !faults.some((known) => known.place === place && known.path === path)));
  if (settings === undefined || faults.length > 0) throw invalid(faults);
  return { settings, plugins: loaded.ready, file };
}

/** The plugin blocks of a file that is at fault somewhere: as much of each as can be told. */
function blocksOf(file: SettingsFile): readonly PluginBlock[] {
  const listed = file.value['plugins'];
  if (!Array.isArray(listed)) return [];
  return listed.filter(isObject).map((block) => ({
    type: String(block['type']),
    name: String(block['name']),
    position: String(block['position']),
    enabled: block['enabled'] !== false,
    plugin_data: {},
    ...(typeof block['plugin_data_file'] === 'string' && { plugin_data_file: block['plugin_data_file'] }),
    ...(typeof block['plugin_cmd'] === 'string' && { plugin_cmd: block['plugin_cmd'] }),
  }));
}
