/** The transform of logits against its definition in single precision, bit for bit, whole and in shards. */
import { test } from 'tap';
import { randomIntegers } from '../helpers/random.ts';
import { at, edited, normals, sameBits } from '../helpers/testing.ts';
import { type Edits, noEdits, processed } from '../references/process-logits.ts';

const logits = Float32Array.of(1, -2, 0.5, 3, -0.25, 0, 2, -1);
const prompt = [3, 1, 3];
const output = [2, 6, 2, 1];
const low = Number.NEGATIVE_INFINITY;

/** One parameter each, with the expected row written by hand. */
const byHand: Record<string, { edits: Partial<Edits>; row: readonly number[]; output?: readonly number[] }> = {
  nothing: { edits: {}, row: [...logits] },
  'a repetition penalty, on prompt and output': { edits: { repetitionPenalty: 2 }, row: [1, -4, 0.25, 1.5, -0.25, 0, 1, -1] },
  'a repetition penalty below one': { edits: { repetitionPenalty: 0.5 }, row: [1, -1, 1, 6, -0.25, 0, 4, -1] },
  'a presence penalty, on the output': { edits: { presencePenalty: 0.5 }, row: [1, -2.5, 0, 3, -0.25, 0, 1.5, -1] },
  'a frequency penalty, by count': { edits: { frequencyPenalty: 0.5 }, row: [1, -2.5, -0.5, 3, -0.25, 0, 1.5, -1] },
  'a negative frequency penalty': { edits: { frequencyPenalty: -1 }, row: [1, -1, 2.5, 3, -0.25, 0, 3, -1] },
  'a bias': {
    edits: {
      logitBias: [
        [0, 4],
        [6, -100],
      ],
    },
    row: [5, -2, 0.5, 3, -0.25, 0, -98, -1],
  },
  'allowed tokens': { edits: { allowedTokenIds: [7, 2, 2] }, row: [low, low, 0.5, low, low, low, low, -1] },
  'a bad word of one token': { edits: { badWords: [[3]] }, row: [1, -2, 0.5, low, -0.25, 0, 2, -1] },
  'a bad word that has begun': { edits: { badWords: [[2, 1, 0]] }, row: [low, -2, 0.5, 3, -0.25, 0, 2, -1] },
  'a bad word that has not': { edits: { badWords: [[6, 1, 0]] }, row: [...logits] },
  'a bad word that began in the prompt': { edits: { badWords: [[3, 0]] }, output: [], row: [...logits] },
  'a bad word that began across the prompt': { edits: { badWords: [[3, 2, 0]] }, output: [2], row: [...logits] },
  'a bad word that is the whole output and one more': {
    edits: { badWords: [[2, 6, 2, 1, 4]] },
    row: [1, -2, 0.5, 3, low, 0, 2, -1],
  },
  'stops before their time': { edits: { minTokens: 5, stopTokenIds: [3, 0] }, row: [low, -2, 0.5, low, -0.25, 0, 2, -1] },
  'stops in their time': { edits: { minTokens: 4, stopTokenIds: [3, 0] }, row: [...logits] },
  'all penalties in order: repetition, frequency, presence, then the bias': {
    edits: { repetitionPenalty: 2, frequencyPenalty: 0.25, presencePenalty: 1, logitBias: [[2, 8]] },
    row: [1, -5.25, 6.75, 1.5, -0.25, 0, -0.25, -1],
  },
  'a bias does not lift a ban': { edits: { badWords: [[6]], logitBias: [[6, 100]] }, row: [1, -2, 0.5, 3, -0.25, 0, low, -1] },
};

test('each parameter does to a row what its definition says', async (t) => {
  for (const [name, { edits, row, output: own = output }] of Object.entries(byHand)) {
    t.same([...edited(logits, { ...noEdits, ...edits }, prompt, own)], row, name);
  }
});

function randomEdits(integers: (below: number) => number, n: number): Edits {
  const id = () => integers(n);
  const some = <T>(most: number, make: () => T): T[] => Array.from({ length: integers(most + 1) }, make);
  const maybe = (value: number, none: number) => (integers(2) === 0 ? none : value);
  return {
    presencePenalty: maybe((integers(4001) - 2000) / 1000, 0),
    frequencyPenalty: maybe((integers(4001) - 2000) / 1000, 0),
    repetitionPenalty: maybe((1 + integers(2000)) / 1000, 1),
    minTokens: integers(12),
    logitBias: some(4, () => [id(), (integers(20_001) - 10_000) / 100] as const),
    allowedTokenIds: integers(3) === 0 ? [id(), ...some(20, id)] : null,
    stopTokenIds: some(3, id),
    badWords: some(4, () => [id(), ...some(2, id)]),
  };
}

test('random combinations give the bits of the definition, in any number of shards', async (t) => {
  const integers = randomIntegers(11);
  for (let round = 0; round < 400; round++) {
    const n = at([5, 40, 300], integers(3));
    const row = normals(integers, n, 3);
    const tokens = (most: number) => Array.from({ length: integers(most) }, () => integers(n));
    const [before, after] = [tokens(30), tokens(20)];
    const edits = randomEdits(integers, n);
    const expected = Float32Array.from(processed(row, edits, before, after, Math.fround));
    const whole = edited(row, edits, before, after);
    if (!sameBits(whole, expected)) t.same([...whole], [...expected], JSON.stringify({ edits, before, after }));
    const numDrafts = integers(after.length + 1);
    const drafted = edited(row, edits, before, after, 0, n, numDrafts);
    if (!sameBits(drafted, expected)) t.fail(`${numDrafts} drafts of ${JSON.stringify({ edits, before, after })}`);
    for (const numShards of [2, 3, 4]) {
      const edges = Array.from({ length: numShards + 1 }, (_, i) => Math.floor((i * n) / numShards));
      const shards = edges.slice(1).flatMap((end, i) => [...edited(row, edits, before, after, at(edges, i), end)]);
      if (!sameBits(Float32Array.from(shards), expected)) t.fail(`${numShards} shards of ${JSON.stringify(edits)}`);
    }
  }
  t.pass('400 rows compared');
});

test('what is no finite number stays apart', async (t) => {
  const broken = Float32Array.of(Number.NaN, Number.POSITIVE_INFINITY, low, 1);
  const edits: Edits = { ...noEdits, repetitionPenalty: 2, presencePenalty: 1, logitBias: [[2, 100]] };
  t.same([...edited(broken, edits, [0, 1, 2], [3])], [Number.NaN, Number.POSITIVE_INFINITY, low, -0.5]);
  t.same([...edited(broken, { ...noEdits, badWords: [[0], [1]] }, [3], [])], [low, low, low, 1], 'a ban covers all');
});
