/** A checkpoint gives the bits of the same weights stored in the type in which they are kept, on any number of ranks. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { readModel } from '../../rank/model/index.ts';
import { copyGoodModel, editJson, type HeaderEntry, readWeights, replaceTensors } from '../helpers/checkpoint-edits.ts';
import { type Call, runJob, type Session } from '../helpers/gang.ts';
import { goldenPath, readGolden } from '../helpers/goldens.ts';
import { part } from '../helpers/scale.ts';
import { e4m3, toBf16 } from '../references/fp8.ts';

/** The upper halves of floats. */
function halves(values: Float32Array): Uint8Array {
  return new Uint8Array(Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16).buffer);
}

/** Floats of bf16 or fp32 bytes. */
function floats(bytes: Uint8Array, dtype: string): Float32Array {
  if (dtype === 'F32') return new Float32Array(Uint8Array.from(bytes).buffer);
  return new Float32Array(Uint32Array.from(new Uint16Array(Uint8Array.from(bytes).buffer), (bits) => bits << 16).buffer);
}

/** A copy of an FP8 golden with every FP8 tensor as bf16(w · scale). */
function writeAsBf16(name: string, folder: string): void {
  cpSync(goldenPath(name), folder, { recursive: true });
  const { header, data } = readWeights(folder);
  const bytesOf = (tensor: string) => data.subarray(...((header[tensor] as HeaderEntry).data_offsets as [number, number]));
  const changes: Parameters<typeof replaceTensors>[1] = {};
  for (const [tensor, { dtype, shape }] of Object.entries(header)) {
    if (dtype !== 'F8_E4M3') continue;
    const [numRows = 0, numCols = 0] = shape;
    const scaleName = [`${tensor}_scale_inv`, `${tensor}_scale`].find((name) => header[name] !== undefined) ?? '';
    const scale = header[scaleName] as HeaderEntry;
    const scales = floats(bytesOf(scaleName), scale.dtype);
    // Blocks of 128 in both directions, one scale for each row, or one in all.
    const [rows, cols] = scale.shape.length < 2 ? [numRows, numCols] : scale.shape[0] === numRows ? [1, numCols] : [128, 128];
    const values = Float32Array.from(bytesOf(tensor), (code, i) => {
      const at = Math.floor(Math.floor(i / numCols) / rows) * Math.ceil(numCols / cols) + Math.floor((i % numCols) / cols);
      return toBf16(Math.fround(e4m3(code) * (scales[at] as number)));
    });
    changes[tensor] = { dtype: 'BF16', shape, bytes: halves(values) };
    for (const used of [scaleName, tensor.replace(/weight$/, 'activation_scale')]) if (used in header) changes[used] = null;
  }
  replaceTensors(folder, changes);
  editJson(folder, 'config.json', { quantization_config: undefined });
}

/** A copy of the good model with some projections in fp32. */
function writeInFp32(folder: string, names: RegExp): void {
  copyGoodModel(folder);
  const { header, data } = readWeights(folder);
  const chosen = Object.entries(header).filter(([name]) => names.test(name));
  const wide = chosen.map(([name, { dtype, shape, data_offsets }]) => {
    const bytes = new Uint8Array(floats(data.subarray(...(data_offsets as [number, number])), dtype).buffer);
    return [name, { dtype: 'F32', shape, bytes }] as const;
  });
  replaceTensors(folder, Object.fromEntries(wide));
}

async function sameBits(t: Test, a: string, b: string, worldSizes: readonly number[], prompt: readonly number[]): Promise<void> {
  const calls: Call[] = [
    { type: 'logits', promptTokenIds: prompt },
    { type: 'generate', prompt: { promptTokenIds: prompt }, params: { temperature: 0, ignoreEos: true, maxTokens: 12 } },
  ];
  const session = (model: string, dtype: 'float32' | 'bfloat16'): Session => ({
    model,
    options: { dtype, numThreads: 2 },
    rounds: [calls],
  });
  const types = ['float32', 'bfloat16'] as const;
  for (const worldSize of worldSizes) {
    const { sessions } = await runJob(worldSize, [...types.map((type) => session(a, type)), ...types.map((type) => session(b, type))]);
    t.ok(sessions[0]?.[0]?.logits, 'there are logits');
    t.same(sessions.slice(0, 2), sessions.slice(2), `${worldSize} ranks`);
  }
}

const fp8 = ['qwen3-fp8-block', 'llama-fp8-channel-mixed', 'qwen2-fp8-block-mixed', 'mistral-fp8-tensor', 'llama-fp8-compressed-tensor'];
for (const name of part(fp8, 3)) {
  test(`${name} as bf16`, async (t) => {
    const folder = join(t.testdir({}), 'bf16');
    writeAsBf16(name, folder);
    t.ok(readModel(goldenPath(name)).weightBytes < readModel(folder).weightBytes, 'FP8 stays in eight bits');
    await sameBits(t, goldenPath(name), folder, [1, 3], readGolden(name).prompts[2] as readonly number[]);
  });
}

test('projections of mixed types as fp32', async (t) => {
  const folder = t.testdir({});
  const [mixed, wide] = [join(folder, 'mixed'), join(folder, 'wide')];
  writeInFp32(mixed, /k_proj|up_proj/);
  writeInFp32(wide, /[qkv]_proj|(gate|up)_proj/);
  t.equal(readModel(mixed).weightBytes, readModel(wide).weightBytes);
  const prompt = Array.from({ length: 40 }, (_, i) => (i * 37 + 5) % 1000);
  await sameBits(t, mixed, wide, [1, 2], prompt);
});
