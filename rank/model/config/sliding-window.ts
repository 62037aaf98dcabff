/** Sliding windows of a model's layers, by the rules of its family. */
import type { ConfigReader } from './config-reader.ts';

/**
 * `none`: the family has no windows. `every layer`: `sliding_window` holds for all (Mistral).
 * `upper layers`: where `use_sliding_window` says so, for the layers that `layer_types` or `max_window_layers` names (Qwen).
 */
export type WindowRule = 'none' | 'every layer' | 'upper layers';

const defaultWindow = 4096;
const defaultMaxWindowLayers = 28;
const maxWindow = 2 ** 30;
const full = 'full_attention';
const sliding = 'sliding_attention';

/**
 * `[numLayers]` newest tokens that a layer attends to, its own among them; 0 = all.
 * @throws NdsError `ERR_CONFIG` or `ERR_UNSUPPORTED` naming the key.
 */
export function parseSlidingWindows(config: ConfigReader, rule: WindowRule, numLayers: number): number[] {
  const layerTypes = parseLayerTypes(config, numLayers);
  if (rule === 'none' && config.has('sliding_window')) throw config.wrong('sliding_window', 'null', 'ERR_UNSUPPORTED');
  const active = rule === 'every layer' || (rule === 'upper layers' && config.boolean('use_sliding_window', false));
  const window = active ? parseWindow(config) : 0;
  if (rule === 'upper layers') {
    const first = config.integer('max_window_layers', 0, Number.MAX_SAFE_INTEGER, defaultMaxWindowLayers);
    const types = layerTypes ?? Array.from({ length: numLayers }, (_, layer) => (window > 0 && layer >= first ? sliding : full));
    if (window === 0 && types.includes(sliding))
      throw config.wrong('sliding_window', `a window and use_sliding_window, as layer_types asks for,`);
    return types.map((type) => (type === sliding ? window : 0));
  }
  const expected = window > 0 ? sliding : full;
  if (layerTypes?.some((type) => type !== expected)) throw config.wrong('layer_types', `"${expected}" for every layer`, 'ERR_UNSUPPORTED');
  return new Array<number>(numLayers).fill(window);
}

/** `null` = no window; absent = Hugging Face's default. */
function parseWindow(config: ConfigReader): number {
  if (!config.hasKey('sliding_window')) return defaultWindow;
  return config.integer('sliding_window', 1, maxWindow, 0);
}

function parseLayerTypes(config: ConfigReader, numLayers: number): string[] | undefined {
  if (!config.has('layer_types')) return undefined;
  const value = config.raw('layer_types');
  if (!Array.isArray(value) || value.length !== numLayers)
    throw config.wrong('layer_types', `a list of num_hidden_layers = ${numLayers} types`);
  for (const type of value) {
    if (typeof type !== 'string') throw config.wrong('layer_types', 'a list of strings');
    if (type !== full && type !== sliding) throw config.wrong('layer_types', `"${full}" or "${sliding}"`, 'ERR_UNSUPPORTED');
  }
  return value as string[];
}
