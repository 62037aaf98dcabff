/** Operators that the CPU runs as one where a program lets it, and one by one where not: the bits are the same. */
import { type Test, test } from 'tap';
import { LogitRowKind, type StepPlan } from '../../protocol/step-plan.ts';
import { alone } from '../../rank/gang/place.ts';
import { buildProgram, type Model, readModel } from '../../rank/model/index.ts';
import { native } from '../../rank/native.ts';
import type { OpSpec, ProgramSpec } from '../../rank/program-spec.ts';
import { goldenPath } from '../helpers/goldens.ts';
import { goodPlan, submit } from '../helpers/next-token.ts';
import { sameBits } from '../helpers/testing.ts';

const model = readModel(goldenPath('llama-gqa-tied-bf16'));
const biased = readModel(goldenPath('llama-bias-fp16'));
const limits = { blockSize: 32, numBlocks: 4, maxModelLen: 64, maxNumSeqs: 2, maxNumBatchedTokens: 48, maxNumLogitRows: 8 };
const kinds = (['float32', 'bfloat16'] as const).flatMap((dtype) =>
  (['none', 'int8'] as const).map((quantization) => ({ dtype, kvCacheDtype: dtype, quantization })),
);
/** More rows than each thread quantizes for itself. */
const numTokens = 12;
const plan: StepPlan = {
  ...goodPlan,
  tokenIds: Int32Array.from({ length: numTokens }, (_, i) => i + 5),
  cuQueryLens: Int32Array.of(0, numTokens),
  contextLens: Int32Array.of(numTokens),
  logitRows: Int32Array.of(numTokens - 1),
  logitRowKinds: Int32Array.of(LogitRowKind.return),
};

function programOf(of: Model, types: (typeof kinds)[number]): ProgramSpec {
  return buildProgram(of, { rank: 0, worldSize: 1, sampleVocabSize: of.config.vocabSize, ...types, ...limits });
}

type Norm = Extract<OpSpec, { op: 'rmsNorm' }>;
type Silu = Extract<OpSpec, { op: 'siluMul' }>;

/** Repeats before each siluMul the operator that `choose` returns, with an output of its own. */
function before(program: ProgramSpec, choose: (silu: Silu, earlier: readonly OpSpec[]) => Norm | Silu): ProgramSpec {
  const values = [...program.values];
  const ops = program.ops.flatMap((op, i): OpSpec[] => {
    if (op.op !== 'siluMul') return [op];
    const chosen = choose(op, program.ops.slice(0, i));
    const out = values.push(program.values[chosen.out] as ProgramSpec['values'][number]) - 1;
    return [{ ...chosen, out }, op];
  });
  return { ...program, values, ops };
}

const lastNorm = (ops: readonly OpSpec[]) => ops.findLast((op) => op.op === 'rmsNorm') as Norm;

async function logitsOf(t: Test, program: ProgramSpec, trace = false): Promise<Float32Array> {
  // One of 64 ranks on the host, so that threads are not pinned.
  const runner = native().createRunner({ ...alone, localWorldSize: 64, numThreads: 2, trace });
  t.teardown(() => runner.close());
  await runner.load(program);
  const { logits } = await submit(runner, plan);
  return logits.slice();
}

test('a product and SiLU, apart and as one', async (t) => {
  for (const types of kinds) {
    const name = `${types.dtype} ${types.quantization}`;
    const program = programOf(model, types);
    const expected = await logitsOf(t, program);
    t.ok(expected.length === model.config.vocabSize && expected.some((value) => value !== 0), 'logits of a row');
    const apart = before(program, (_, earlier) => lastNorm(earlier));
    t.ok(sameBits(await logitsOf(t, apart), expected), `${name}: another operator in between`);
    const twice = before(program, (silu) => silu);
    t.ok(sameBits(await logitsOf(t, twice), expected), `${name}: a product that is read twice`);
  }
});

test('row-wise operators, without barriers in between and each timed alone', async (t) => {
  for (const checkpoint of [model, biased]) {
    for (const types of kinds) {
      const program = programOf(checkpoint, types);
      const [joined, apart] = [await logitsOf(t, program), await logitsOf(t, program, true)];
      t.ok(sameBits(joined, apart), `${checkpoint === biased ? 'with' : 'without'} biases, ${types.dtype} ${types.quantization}`);
    }
  }
});
