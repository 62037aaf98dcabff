/** How a checkpoint names the tensors of its decoder, and which others it may hold beside them. */
import type { StoredTensor } from './safetensors.ts';

/** Prefixes of a checkpoint's names. */
export interface Layout {
  /** Of `embed_tokens`, `layers.N` and `norm`. */
  readonly text: string;
  /** Of `lm_head`. */
  readonly head: string;
  /** Of tensors that are not part of the decoder. */
  readonly others: readonly string[];
}

/** Tensors that were left out, by the first part of their name. */
export interface SkippedTensors {
  readonly prefix: string;
  readonly numTensors: number;
}

/** Multi-token prediction heads, which no token of the decoder depends on. */
const predictors = ['mtp.'];
/** Classes with an LM head, and their base class. */
const textLayouts: readonly Layout[] = [
  { text: 'model.', head: '', others: predictors },
  { text: '', head: '', others: predictors },
];
/** Decoders beside a vision tower: as published, as saved by Hugging Face since, flat, and the base class. */
const multimodalLayouts: readonly Layout[] = [
  {
    text: 'model.language_model.',
    head: '',
    others: ['model.visual.', 'model.vision_tower.', 'model.multi_modal_projector.', ...predictors],
  },
  { text: 'language_model.model.', head: 'language_model.', others: ['visual.', 'vision_tower.', 'multi_modal_projector.', ...predictors] },
  { text: 'model.', head: '', others: ['visual.', 'model.visual.', ...predictors] },
  { text: 'language_model.', head: '', others: ['visual.', 'vision_tower.', 'multi_modal_projector.', ...predictors] },
];

/** The layout whose first layer is there; else the common one, of which tensors will be missed by name. */
export function findLayout(stored: ReadonlyMap<string, StoredTensor>, isMultimodal: boolean): Layout {
  const layouts = isMultimodal ? multimodalLayouts : textLayouts;
  const found = layouts.find(({ text }) => stored.has(`${text}layers.0.input_layernorm.weight`));
  return found ?? (layouts[0] as Layout);
}
