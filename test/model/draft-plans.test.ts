/**
 * Plans with drafts on the runner alone: acceptance, what the next plan may assume of it, and every kind of bad plan.
 */
import { type Test, test } from 'tap';
import { noLists, toRagged } from '../../protocol/admit-lists.ts';
import type { DraftRule } from '../../protocol/messages.ts';
import type { DraftPlan, StepPlan } from '../../protocol/step-plan.ts';
import { native, type Runner } from '../../rank/native.ts';
import type { ProgramSpec } from '../../rank/program-spec.ts';
import { goodPlan, nextTokenProgram, submit, vocabSize } from '../helpers/next-token.ts';

const alone = { rank: 0, worldSize: 1, localRank: 0, localWorldSize: 1, shmFd: -1, startupTimeoutMs: 600_000, stepTimeoutMs: 600_000 };

/** Prefills 5, 6, 7 in a slot that a draft model may draft for; token 8 follows. */
const admission: StepPlan = {
  ...goodPlan,
  admitInts: Int32Array.of(0, 0, 3, 0, -1, -1, 1),
  admitLists: { ...noLists, history: toRagged([[5, 6, 7]]) },
};
const draft: DraftPlan = { lens: Int32Array.of(4), blockTables: Int32Array.of(1), cuBlocks: Int32Array.of(0, 1) };
const next: StepPlan = {
  ...goodPlan,
  step: 1,
  admitSlots: new Int32Array(0),
  admitLens: new Int32Array(0),
  admitFloats: new Float32Array(0),
  admitInts: new Int32Array(0),
  admitSeeds: new Uint32Array(0),
};
/** Two drafts by the draft model after token 8. */
const proposed: StepPlan = {
  ...next,
  tokenIds: Int32Array.of(-1, -2, -3),
  cuQueryLens: Int32Array.of(0, 3),
  contextLens: Int32Array.of(6),
  numDrafts: Int32Array.of(2),
  draft,
  logitRows: Int32Array.of(0, 1, 2),
  logitRowKinds: Int32Array.of(0, 0, 0),
};
/** The same drafts, given in the plan. */
const given: StepPlan = { ...proposed, tokenIds: Int32Array.of(-1, 9, 10), draft: null };

interface Load {
  readonly program?: Partial<ProgramSpec>;
  /** Null = no draft model. */
  readonly draft?: Partial<ProgramSpec> | null;
  readonly rule?: DraftRule;
}

/** A runner that has run `admission`, with the same model as target and draft, which predicts i + 1 after i. */
async function openRunner(t: Test, load: Load = {}, first: StepPlan = admission): Promise<Runner> {
  const program = nextTokenProgram(t);
  const runner = native().createRunner({ ...alone, numThreads: 2 });
  t.teardown(() => runner.close());
  const other = load.draft === null ? undefined : { program: { ...program, ...load.draft }, isSharded: false, isGreedy: false };
  await runner.load({ ...program, ...load.program }, other, load.rule ?? 'coupled');
  t.same([...(await submit(runner, first)).tokenIds], [8]);
  return runner;
}

for (const rule of ['coupled', 'standard', 'block'] as const) {
  test(`drafts that are right stay, and those after a wrong one go: ${rule}`, async (t) => {
    const runner = await openRunner(t, { rule });
    const all = await submit(runner, proposed);
    t.same([[...all.numTokens], [...all.tokenIds]], [[3], [9, 10, 11]]);
    const some = {
      ...given,
      step: 2,
      tokenIds: Int32Array.of(-1, 12, 20, 13),
      cuQueryLens: Int32Array.of(0, 4),
      numDrafts: Int32Array.of(3),
    };
    const rows = { logitRows: Int32Array.of(0, 1, 2, 3), logitRowKinds: new Int32Array(4) };
    const one = await submit(runner, { ...some, ...rows, contextLens: Int32Array.of(10) });
    t.same([[...one.numTokens], [...one.tokenIds]], [[2], [12, 13]]);
    // Planned before it was known that one of three was accepted: 8 tokens are cached, and the plan assumes 10 + 3.
    const blind = await submit(runner, {
      ...proposed,
      step: 3,
      contextLens: Int32Array.of(13),
      draft: { ...draft, lens: Int32Array.of(9) },
    });
    t.same([[...blind.numTokens], [...blind.tokenIds]], [[3], [14, 15, 16]]);
    const none = { ...given, step: 4, tokenIds: Int32Array.of(-1, 3, 17), contextLens: Int32Array.of(14) };
    t.same([...(await submit(runner, none)).tokenIds], [17]);
    const plain = { ...next, step: 5, tokenIds: Int32Array.of(-1), cuQueryLens: Int32Array.of(0, 1), logitRows: Int32Array.of(0) };
    t.same([...(await submit(runner, { ...plain, contextLens: Int32Array.of(13) })).tokenIds], [18]);
  });
}

test('the draft model catches up in parts', async (t) => {
  const runner = await openRunner(t);
  const plain = {
    ...next,
    tokenIds: Int32Array.of(-1),
    cuQueryLens: Int32Array.of(0, 1),
    logitRows: Int32Array.of(0),
    numDrafts: Int32Array.of(0),
  };
  const part = { ...draft, lens: Int32Array.of(3) };
  t.same([...(await submit(runner, { ...plain, contextLens: Int32Array.of(4), draft: part })).tokenIds], [9]);
  const behind = { ...proposed, step: 2, contextLens: Int32Array.of(7), draft: { ...draft, lens: Int32Array.of(2) } };
  t.same([...(await submit(runner, behind)).tokenIds], [10, 11, 12]);
});

/** `numDrafts` drafts, all in the vocabulary. */
const many = (numDrafts: number): Partial<StepPlan> => ({
  tokenIds: Int32Array.from({ length: numDrafts + 1 }, (_, i) => (i === 0 ? -1 : 9 + (i % 20))),
  cuQueryLens: Int32Array.of(0, numDrafts + 1),
  contextLens: Int32Array.of(numDrafts + 4),
  numDrafts: Int32Array.of(numDrafts),
  logitRows: Int32Array.from({ length: numDrafts + 1 }, (_, i) => i),
  logitRowKinds: new Int32Array(numDrafts + 1),
});

const lens = (value: number) => ({ draft: { ...draft, lens: Int32Array.of(value) } });

const badPlans: Record<string, readonly [base: StepPlan, change: Partial<StepPlan>, message: RegExp]> = {
  'fewer drafts than tokens after the first': [given, { numDrafts: Int32Array.of(1) }, /one token and then drafts/],
  'more drafts than tokens': [given, { numDrafts: Int32Array.of(3) }, /one token and then drafts/],
  'a draft without a token before it': [given, { ...many(0), numDrafts: Int32Array.of(1) }, /one token and then drafts/],
  'a negative number of drafts': [given, { numDrafts: Int32Array.of(-1) }, /one token and then drafts/],
  'numbers of drafts for two sequences': [given, { numDrafts: Int32Array.of(2, 0) }, /1 numbers of drafts but received 2/],
  'drafts to be proposed that no number tells of': [
    proposed,
    { numDrafts: new Int32Array(0), logitRows: Int32Array.of(2), logitRowKinds: Int32Array.of(0) },
    /token id below 40 .* -2/,
  ],
  'drafts to be proposed without the draft': [proposed, { draft: null }, /draftLens beside drafts/],
  'lengths of the draft for two sequences': [
    proposed,
    { draft: { ...draft, lens: Int32Array.of(4, 0) } },
    /1 entries of draftLens but received 2/,
  ],
  "the draft's blocks for two sequences": [
    proposed,
    { draft: { ...draft, cuBlocks: Int32Array.of(0, 1, 1) } },
    /2 entries of the draft's cuBlocks but received 3/,
  ],
  'a negative length of the draft': [proposed, lens(-1), /admitted with its history/],
  'a draft that sees nothing': [proposed, lens(0), /sees the newest token .* 0/],
  'a draft that does not see the newest token': [proposed, lens(3), /sees the newest token .* 3/],
  'no block of the draft': [proposed, { draft: { ...draft, cuBlocks: Int32Array.of(0, 0) } }, /1 blocks for sequence 0 but received 0/],
  "a block past the draft's last": [proposed, { draft: { ...draft, blockTables: Int32Array.of(4) } }, /block below 4 .* 4/],
  'a negative block of the draft': [proposed, { draft: { ...draft, blockTables: Int32Array.of(-1) } }, /block below 4 .* -1/],
  "the draft's block tables end before its cuBlocks": [
    proposed,
    { draft: { ...draft, cuBlocks: Int32Array.of(0, 2) } },
    /cuBlocks to ascend/,
  ],
  'drafts out of order': [proposed, { tokenIds: Int32Array.of(-1, -3, -2) }, /-2 and on for all drafts.* -3/],
  'a draft left out': [proposed, { tokenIds: Int32Array.of(-1, -2, -4) }, /-2 and on for all drafts.* -4/],
  'a draft twice': [proposed, { tokenIds: Int32Array.of(-1, -2, -2) }, /-2 and on for all drafts.* -2/],
  'drafts given and then proposed': [proposed, { tokenIds: Int32Array.of(-1, 9, -3) }, /-2 and on for all drafts.* 9/],
  'drafts proposed and then given': [proposed, { tokenIds: Int32Array.of(-1, -2, 10) }, /-2 and on for all drafts.* -2/],
  'a draft in place of the first token': [proposed, { tokenIds: Int32Array.of(-2, -2, -3) }, /-2 and on for all drafts.* -2/],
  'the newest token among drafts': [given, { tokenIds: Int32Array.of(-1, -1, 10) }, /token id below 40 .* -1/],
  'a draft past the vocabulary': [given, { tokenIds: Int32Array.of(-1, 9, vocabSize) }, /token id below 40 .* 40/],
  'no row to sample for the last draft': [
    given,
    { logitRows: Int32Array.of(0, 1), logitRowKinds: new Int32Array(2) },
    /each draft of sequence 0 but received 2/,
  ],
  'no row to sample for the first token': [
    given,
    { logitRows: Int32Array.of(1, 2), logitRowKinds: new Int32Array(2) },
    /each draft of sequence 0 but received 2/,
  ],
  'no row to sample at all': [
    given,
    { logitRows: new Int32Array(0), logitRowKinds: new Int32Array(0) },
    /each draft of sequence 0 but received 0/,
  ],
  'a row between drafts that is handed back': [given, { logitRowKinds: Int32Array.of(0, 1, 0) }, /each draft of sequence 0 but received 2/],
  'more rows to sample than there may be': [given, many(8), /at most 8 logit rows but received 9/],
  'blocks for fewer tokens than the drafts make': [
    given,
    { ...many(30), logitRows: Int32Array.of(0), logitRowKinds: Int32Array.of(0) },
    /2 blocks for sequence 0 but received 1/,
  ],
  'a context that goes past what is cached, where it is known': [given, { contextLens: Int32Array.of(7) }, /context length 6 .* 7/],
  'a context short of the drafts': [given, { contextLens: Int32Array.of(5) }, /context length 6 .* 5/],
};

test('a bad plan of drafts is refused before anything runs', async (t) => {
  t.same([...(await submit(await openRunner(t), given)).tokenIds], [9, 10, 11], 'what they are made of is good');
  for (const [name, [plan, change, message]] of Object.entries(badPlans)) {
    const runner = await openRunner(t);
    await t.rejects(submit(runner, { ...plan, ...change }), { code: 'ERR_PLAN', message }, name);
    await runner.close();
  }
});

test('after drafts a context may be said to be longer than it is, and never shorter', async (t) => {
  const runner = await openRunner(t);
  await submit(runner, { ...given, tokenIds: Int32Array.of(-1, 20, 21) });
  const plain = { ...next, step: 2, tokenIds: Int32Array.of(-1), cuQueryLens: Int32Array.of(0, 1), logitRows: Int32Array.of(0) };
  await t.rejects(submit(runner, { ...plain, contextLens: Int32Array.of(4) }), { code: 'ERR_PLAN', message: /context length 5 .* 4/ });
});

test('limits of the draft model are its own', async (t) => {
  const cases: [name: string, load: Load, plan: StepPlan, message: RegExp][] = [
    ['no draft model', { draft: null }, proposed, /no draftLens where no draft is loaded/],
    ['tokens of a pass', { draft: { maxNumBatchedTokens: 3 } }, proposed, /at most 3 tokens for the draft but received 4/],
    ['its context', { draft: { maxModelLen: 4 } }, proposed, /at most 4 tokens for the draft of sequence 0 but received 5/],
    ['its blocks', { draft: { kv: { ...nextTokenProgram(t).kv, numBlocks: 1 } } }, proposed, /block below 1 .* 1/],
    [
      'drafts of a sequence',
      { program: { maxNumBatchedTokens: 80, maxNumLogitRows: 80, maxModelLen: 96 } },
      { ...given, ...many(65), cuBlocks: Int32Array.of(0, 3), blockTables: Int32Array.of(1, 2, 3) },
      /at most 64 drafts .* 65/,
    ],
  ];
  for (const [name, load, plan, message] of cases) {
    const runner = await openRunner(t, load);
    await t.rejects(submit(runner, plan), { code: 'ERR_PLAN', message }, name);
    await runner.close();
  }
  const last = await openRunner(t, { draft: { maxModelLen: 5 } });
  t.same([...(await submit(last, proposed)).tokenIds], [9, 10, 11], 'the last draft is not taken in');
});

test('a draft needs the history of its slot', async (t) => {
  const without = await openRunner(t, {}, goodPlan);
  await t.rejects(submit(without, proposed), { code: 'ERR_PLAN', message: /admitted with its history for the draft of sequence 0/ });
  t.same([...(await submit(await openRunner(t, {}, goodPlan), given)).tokenIds], [9, 10, 11], 'drafts that are given do not');
  const runner = native().createRunner({ ...alone, numThreads: 1 });
  t.teardown(() => runner.close());
  await runner.load(nextTokenProgram(t));
  const short = { ...admission, admitLists: { ...noLists, history: toRagged([[5, 6]]) } };
  await t.rejects(submit(runner, short), { code: 'ERR_PLAN', message: /a history of 3 tokens for the row to sample but received 2/ });
});
