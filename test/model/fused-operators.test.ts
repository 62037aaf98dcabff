/** Operators that the CPU runs as one where a program lets it, and one by one where not: the bits are the same. */
import { type Test, test } from 'tap';
import { LogitRowKind } from '../../protocol/step-plan.ts';
import { alone } from '../../rank/gang/place.ts';
import { buildProgram, readModel } from '../../rank/model/index.ts';
import { native } from '../../rank/native.ts';
import type { OpSpec, ProgramSpec } from '../../rank/program-spec.ts';
import { goldenPath } from '../helpers/goldens.ts';
import { goodPlan, submit } from '../helpers/next-token.ts';
import { sameBits } from '../helpers/testing.ts';

const model = readModel(goldenPath('llama-gqa-tied-bf16'));
const { vocabSize } = model.config;

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

async function logitsOf(t: Test, program: ProgramSpec): Promise<Float32Array> {
  // One of 64 ranks on the host, so that threads are not pinned.
  const runner = native().createRunner({ ...alone, localWorldSize: 64, numThreads: 2 });
  t.teardown(() => runner.close());
  await runner.load(program);
  const { logits } = await submit(runner, { ...goodPlan, logitRowKinds: Int32Array.of(LogitRowKind.return) });
  return logits.slice();
}

test('a product and SiLU, apart and as one', async (t) => {
  const limits = { blockSize: 32, numBlocks: 4, maxModelLen: 64, maxNumSeqs: 2, maxNumBatchedTokens: 48, maxNumLogitRows: 8 };
  for (const dtype of ['float32', 'bfloat16'] as const) {
    for (const quantization of ['none', 'int8'] as const) {
      const share = { rank: 0, worldSize: 1, dtype, kvCacheDtype: dtype, quantization, sampleVocabSize: vocabSize };
      const program = buildProgram(model, { ...share, ...limits });
      const expected = await logitsOf(t, program);
      t.ok(expected.length === vocabSize && expected.some((value) => value !== 0), 'logits of a row');
      const apart = before(program, (_, earlier) => lastNorm(earlier));
      t.ok(sameBits(await logitsOf(t, apart), expected), `${dtype} ${quantization}: another operator in between`);
      const twice = before(program, (silu) => silu);
      t.ok(sameBits(await logitsOf(t, twice), expected), `${dtype} ${quantization}: a product that is read twice`);
    }
  }
});
