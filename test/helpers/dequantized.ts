/** Checkpoints whose matrices are, in fp32, what a quantized load keeps of them: the same model but for its activations. */
import { cpSync } from 'node:fs';
import { buildProgram, readModel } from '../../rank/model/index.ts';
import { type Group, groupColumns, quantizeWeights } from '../references/quantized.ts';
import { editJson, readWeights, replaceTensors } from './checkpoint-edits.ts';

type Format = 'int8' | 'int4';
/** Quantizes the weights of one output over the inputs that share a scale. */
export type Quantize = (w: Float32Array, format: Format) => Group;

/**
 * Copies the model at `source`, of one file and without FP8, with every matrix dequantized; an LM head that was tied is
 * then a tensor of its own.
 *
 * @param quantize - a wrong one, to see that it is found
 */
export function writeDequantized(folder: string, source: string, quantization: Format, quantize: Quantize = quantizeWeights): void {
  cpSync(source, folder, { recursive: true });
  const model = readModel(source);
  const sizes = { blockSize: 32, numBlocks: 1, maxModelLen: 32, maxNumSeqs: 1, maxNumBatchedTokens: 1, maxNumLogitRows: 1 };
  const types = { dtype: 'float32', kvCacheDtype: 'float32', quantization } as const;
  const { weights } = buildProgram(model, { rank: 0, worldSize: 1, ...types, ...sizes, sampleVocabSize: 1 });
  const { header, data } = readWeights(source);
  const tensors: Parameters<typeof replaceTensors>[1] = {};
  for (const weight of weights) {
    if (weight.kind !== 'linear') continue;
    for (const { name } of weight.pieces) {
      const { dtype, shape, data_offsets } = header[name] as NonNullable<(typeof header)[string]>;
      const values = toFloats(data.subarray(...(data_offsets as [number, number])), dtype);
      dequantize(values, weight.chunkEdges, weight.format as Format, quantize);
      const isTied = name === model.tensors.embedTokens.name;
      tensors[isTied ? 'lm_head.weight' : name] = { dtype: 'F32', shape, bytes: new Uint8Array(values.buffer) };
    }
  }
  replaceTensors(folder, tensors);
  editJson(folder, 'config.json', { tie_word_embeddings: false });
}

/** Replaces the rows of a matrix in place. */
function dequantize(values: Float32Array, chunkEdges: readonly number[], format: Format, quantize: Quantize): void {
  const numCols = chunkEdges.at(-1) as number;
  for (let row = 0; row < values.length; row += numCols) {
    for (const [i, end] of chunkEdges.slice(1).entries()) {
      for (let begin = chunkEdges[i] as number; begin < end; begin += groupColumns) {
        const group = values.subarray(row + begin, row + Math.min(end, begin + groupColumns));
        const { q, scale } = quantize(group, format);
        group.set(q.map((each) => each * scale));
      }
    }
  }
}

/** Values of a tensor's bytes. */
function toFloats(bytes: Uint8Array, dtype: string): Float32Array {
  const { buffer } = Uint8Array.from(bytes);
  if (dtype === 'F32') return new Float32Array(buffer);
  const half = dtype === 'BF16' ? (bits: number) => floatOf(bits * 2 ** 16) : fromFp16;
  return Float32Array.from(new Uint16Array(buffer), half);
}

function floatOf(bits: number): number {
  return new Float32Array(Uint32Array.of(bits).buffer)[0] as number;
}

function fromFp16(bits: number): number {
  const [exponent, fraction] = [(bits >> 10) & 31, (bits & 1023) / 1024];
  return (bits & 0x8000 ? -1 : 1) * (exponent === 0 ? fraction * 2 ** -14 : (1 + fraction) * 2 ** (exponent - 15));
}
