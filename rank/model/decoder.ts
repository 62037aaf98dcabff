/** The decoder of the Llama and Qwen families, for one rank of a tensor-parallel group. */
import type { ModelConfig } from './config/config.ts';
import { ColumnParallelLinear, ParallelLMHead, RowParallelLinear, VocabParallelEmbedding } from './parallel.ts';
import type { Partition, Range } from './partition.ts';
import type { Program, Value } from './program.ts';
import { ropeSpec } from './rope.ts';
import type { LayerTensors, ModelTensors } from './weights.ts';

/** Records the model. The residual stream is fp32; inputs of matrix products have the activation dtype. */
export function recordDecoder(p: Program, config: ModelConfig, tensors: ModelTensors, part: Partition, maxModelLen: number): void {
  const [rotating, still] = [true, false].map((rotates) =>
    config.hasRope.includes(rotates) ? p.rope(ropeSpec(config, rotates, maxModelLen)) : undefined,
  );
  let hidden = new VocabParallelEmbedding(p, tensors.embedTokens, part).forward();
  tensors.layers.forEach((w, layer) => {
    p.group('attention_in', layer);
    hidden = p.add(hidden, attention(p, config, w, part, (config.hasRope[layer] ? rotating : still) as number, layer, hidden));
    p.group('mlp', layer);
    hidden = p.add(hidden, mlp(p, config, w, part, hidden));
  });
  const norm = p.vector({ tensor: tensors.norm });
  p.group('hidden_states', null);
  p.hiddenStates(hidden, norm, config.rmsNormEps);
  p.group('lm_head', null);
  // From here on only the plan's `logitRows`.
  const last = p.rmsNorm(p.gatherRows(hidden), norm, config.rmsNormEps);
  new ParallelLMHead(p, tensors.lmHead, part).sample(last);
}

function attention(p: Program, config: ModelConfig, w: LayerTensors, part: Partition, rope: number, layer: number, hidden: Value): Value {
  const { headDim, rmsNormEps } = config;
  const qCols = scale(part.heads, headDim);
  const kvCols = scale(part.kvHeads, headDim);
  const qkvProj = new ColumnParallelLinear(p, [
    { linear: w.qProj, range: qCols },
    { linear: w.kProj, range: kvCols },
    { linear: w.vProj, range: kvCols },
  ]);
  const heads = headLayout(config, part, qkvProj.offsets);
  const oneHeadAChunk = Array.from({ length: part.numChunks + 1 }, (_, i) => i * headDim);
  const oProj = new RowParallelLinear(p, w.oProj, qCols, oneHeadAChunk, part);

  const qkv = qkvProj.forward(p.rmsNorm(hidden, p.vector({ tensor: w.inputLayernorm }), rmsNormEps));
  if (w.qNorm !== null && w.kNorm !== null) {
    p.headNorm(qkv, heads, p.vector({ tensor: w.qNorm }), p.vector({ tensor: w.kNorm }), rmsNormEps);
  }
  const q = p.ropeAndStore(qkv, heads, rope, layer);
  const attended = p.pagedAttention(q, heads, layer, config.slidingWindows[layer] ?? 0);
  p.group('o_proj', layer);
  return oProj.forward(attended);
}

function mlp(p: Program, config: ModelConfig, w: LayerTensors, part: Partition, hidden: Value): Value {
  const { mlpColumns, mlpEdges } = part;
  const gateUpProj = new ColumnParallelLinear(p, [
    { linear: w.gateProj, range: mlpColumns },
    { linear: w.upProj, range: mlpColumns },
  ]);
  const downProj = new RowParallelLinear(p, w.downProj, mlpColumns, mlpEdges, part);

  const normed = p.rmsNorm(hidden, p.vector({ tensor: w.postAttentionLayernorm }), config.rmsNormEps);
  const [, upOffset = 0] = gateUpProj.offsets;
  return downProj.forward(p.siluMul(gateUpProj.forward(normed), mlpColumns[1] - mlpColumns[0], upOffset));
}

function headLayout(config: ModelConfig, { heads, kvHeads }: Partition, [qOffset = 0, kOffset = 0, vOffset = 0]: readonly number[]) {
  return {
    headDim: config.headDim,
    firstHead: heads[0],
    numHeads: heads[1] - heads[0],
    firstKvHead: kvHeads[0],
    numKvHeads: kvHeads[1] - kvHeads[0],
    groupSize: config.numAttentionHeads / config.numKvHeads,
    qOffset,
    kOffset,
    vOffset,
  };
}

/** Columns of a range of heads. */
function scale([begin, end]: Range, headDim: number): Range {
  return [begin * headDim, end * headDim];
}
