/** Sliding windows of a model's layers, by the rules of its family. */
import type { ConfigReader } from './config-reader.ts';

/**
 * Which layers have the window `sliding_window`:
 * `none`: the family has no windows. `every layer`: all (Mistral), by default of 4096 tokens; `every layer, if given`:
 * all, by default none (Ministral 3).
 * `layer types`: those that `layer_types` names, by default all (Ministral).
 * `upper layers`: where `use_sliding_window` says so, those that `layer_types` names, by default from `max_window_layers`
 * on (Qwen). `layers without RoPE`: likewise, by default those without a rotary embedding (SmolLM3).
 */
export type WindowRule = 'none' | 'every layer' | 'every layer, if given' | 'layer types' | 'upper layers' | 'layers without RoPE';

const defaultWindow = 4096;
const defaultMaxWindowLayers = 28;
const maxWindow = 2 ** 30;
const full = 'full_attention';
const sliding = 'sliding_attention';

/**
 * `[numLayers]` newest tokens that a layer attends to, its own among them; 0 = all.
 * @param hasRope - `[numLayers]` whether a layer has a rotary embedding
 * @throws NdsError `ERR_CONFIG` or `ERR_UNSUPPORTED` naming the key.
 */
export function parseSlidingWindows(config: ConfigReader, rule: WindowRule, hasRope: readonly boolean[]): number[] {
  const layerTypes = parseLayerTypes(config, hasRope.length);
  const isSwitched = rule === 'upper layers' || rule === 'layers without RoPE';
  const isOff = config.raw('use_sliding_window') === false;
  if (rule === 'none' && config.has('sliding_window') && !isOff) throw config.wrong('sliding_window', 'null', 'ERR_UNSUPPORTED');
  const isActive = rule !== 'none' && (!isSwitched || config.boolean('use_sliding_window', false));
  const window = isActive ? parseWindow(config, rule) : 0;
  const types = layerTypes ?? hasRope.map((_, layer) => (window > 0 && isSliding(config, rule, layer, hasRope) ? sliding : full));
  if (!isSwitched && rule !== 'layer types') {
    const expected = window > 0 ? sliding : full;
    if (types.some((type) => type !== expected)) throw config.wrong('layer_types', `"${expected}" for every layer`, 'ERR_UNSUPPORTED');
  }
  if (window === 0 && types.includes(sliding))
    throw config.wrong('sliding_window', `a window${isSwitched ? ' and use_sliding_window' : ''}, as layer_types asks for,`);
  return types.map((type) => (type === sliding ? window : 0));
}

/** Whether a layer has the window where `layer_types` does not say so. */
function isSliding(config: ConfigReader, rule: WindowRule, layer: number, hasRope: readonly boolean[]): boolean {
  if (rule === 'layers without RoPE') return hasRope[layer] === false;
  return rule !== 'upper layers' || layer >= config.integer('max_window_layers', 0, Number.MAX_SAFE_INTEGER, defaultMaxWindowLayers);
}

/** `null` = no window; absent = Hugging Face's default. */
function parseWindow(config: ConfigReader, rule: WindowRule): number {
  if (!config.hasKey('sliding_window')) return rule === 'every layer, if given' || rule === 'layers without RoPE' ? 0 : defaultWindow;
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
