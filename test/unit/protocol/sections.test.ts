/** Sections, plans and results as bytes, and the error class. */
import t from 'tap';
import { noLists, toRagged } from '../../../protocol/admit-lists.ts';
import { exitCodes, isNdsErrorCode, NdsError, toNdsError } from '../../../protocol/errors.ts';
import { type Layout, packSections, viewSections } from '../../../protocol/sections.ts';
import { PlanSection, packPlan, type StepPlan, viewPlan } from '../../../protocol/step-plan.ts';
import { ResultSection, viewResult } from '../../../protocol/step-result.ts';

const isProtocolError = { name: 'NdsError', code: 'ERR_PROTOCOL' };

const layout: Layout = new Map<number, Int32ArrayConstructor | Float64ArrayConstructor>([
  [1, Int32Array],
  [2, Float64Array],
]);

/** Copies bytes to offset 64 of a larger buffer, as a socket may deliver them. */
function shifted(bytes: Uint8Array): Uint8Array {
  const buffer = new Uint8Array(bytes.byteLength + 128);
  buffer.set(bytes, 64);
  return buffer.subarray(64, 64 + bytes.byteLength);
}

t.test('sections', async (t) => {
  t.test('come back equal from any aligned place, each at a multiple of 64 bytes', async (t) => {
    const { directory, bytes } = packSections([
      [2, Float64Array.of(Math.PI, -0, Infinity)],
      [1, Int32Array.from({ length: 17 }, (_, i) => i * -7)],
    ]);
    t.same([...directory], [2, 0, 24, 1, 64, 68]);
    t.equal(bytes.byteLength % 64, 0);
    const views = viewSections(directory, shifted(bytes), layout);
    t.same([...(views.get(2) ?? [])], [Math.PI, -0, Infinity]);
    t.same(
      [...(views.get(1) ?? [])],
      Array.from({ length: 17 }, (_, i) => i * -7),
    );
  });

  t.test('packs what an array views, not the whole of its buffer', async (t) => {
    const { directory, bytes } = packSections([[1, Int32Array.of(1, 2, 3, 4).subarray(1, 3)]]);
    t.same([...(viewSections(directory, bytes, layout).get(1) ?? [])], [2, 3]);
  });

  t.test('keeps an empty section apart from an absent one', async (t) => {
    const { directory, bytes } = packSections([[1, new Int32Array(0)]]);
    const views = viewSections(directory, bytes, layout);
    t.equal(views.get(1)?.length, 0);
    t.notOk(views.has(2));
  });

  const bytes = new Uint8Array(128);
  const bad: Record<string, number[]> = {
    'two numbers': [1, 0],
    'an unknown section': [3, 0, 4],
    'a repeated section': [1, 0, 4, 1, 64, 4],
    'a misaligned section': [1, 32, 4],
    'half an element': [1, 0, 6],
    'a section past the end': [1, 64, 68],
    'a negative offset': [1, -64, 4],
    'a negative length': [1, 64, -4],
  };
  for (const [name, directory] of Object.entries(bad)) {
    t.test(`refuses ${name}`, async (t) => {
      t.throws(() => viewSections(Int32Array.from(directory), bytes, layout), isProtocolError);
    });
  }
});

const plan: StepPlan = {
  step: 41,
  slots: Int32Array.of(3, 0),
  tokenIds: Int32Array.of(-1, 11, 12, 13),
  cuQueryLens: Int32Array.of(0, 1, 4),
  contextLens: Int32Array.of(33, 3),
  blockCopies: Int32Array.of(5, 7, 7, 2),
  blockTables: Int32Array.of(7, 8, 2),
  cuBlocks: Int32Array.of(0, 2, 3),
  numDrafts: new Int32Array(0),
  draft: null,
  logitRows: Int32Array.of(0, 3),
  logitRowKinds: Int32Array.of(0, 1),
  admitSlots: Int32Array.of(0),
  admitLens: Int32Array.of(0),
  logitRowTargets: new Int32Array(0),
  hiddenRows: new Int32Array(0),
  admitFloats: Float32Array.of(0.5, 1, 0.25, 0, 0, 1),
  admitInts: Int32Array.of(40, 2, 3, 0, -1, -1, 0),
  admitSeeds: Uint32Array.of(0xffffffff, 1),
  admitLists: noLists,
};

const planWithLists: StepPlan = {
  ...plan,
  admitLists: {
    history: toRagged([[11, 12, 13]]),
    bias: toRagged([[4, 5]]),
    biasValues: Float32Array.of(-1, 2.5),
    allowed: toRagged([[4, 5, 6]]),
    stops: toRagged([[2]]),
    badWords: toRagged([[7, 8], [9]]),
    cuBadWords: Int32Array.of(0, 2),
  },
};

t.test('step plan', async (t) => {
  t.test('comes back equal', async (t) => {
    for (const whole of [plan, planWithLists, { ...plan, logitRowKinds: Int32Array.of(2, 1), logitRowTargets: Int32Array.of(9, -1) }]) {
      const { directory, bytes } = packPlan(whole);
      t.same(viewPlan(41, directory, shifted(bytes)), whole);
    }
  });

  t.test('leaves the admission out when nothing is admitted', async (t) => {
    const none = { admitSlots: new Int32Array(0), admitLens: new Int32Array(0), admitInts: new Int32Array(0) };
    const withoutAdmission = { ...plan, ...none, admitFloats: new Float32Array(0), admitSeeds: new Uint32Array(0) };
    const { directory, bytes } = packPlan(withoutAdmission);
    const ids = [...directory].filter((_, i) => i % 3 === 0);
    t.notOk(ids.some((id) => id >= PlanSection.admitSlots && id <= PlanSection.admitSeeds));
    t.same(viewPlan(41, directory, bytes), withoutAdmission);
  });

  t.test('leaves the block copies out when there are none', async (t) => {
    const withoutCopies = { ...plan, blockCopies: new Int32Array(0) };
    const { directory, bytes } = packPlan(withoutCopies);
    t.notOk([...directory].some((id, i) => i % 3 === 0 && id === PlanSection.blockCopies));
    t.same(viewPlan(41, directory, bytes), withoutCopies);
  });

  t.test('refuses every plan that lacks one section', async (t) => {
    const { directory, bytes } = packPlan({ ...planWithLists, blockCopies: new Int32Array(0) });
    for (let i = 0; i < directory.length; i += 3) {
      const rest = Int32Array.from([...directory.subarray(0, i), ...directory.subarray(i + 3)]);
      t.throws(() => viewPlan(0, rest, bytes), isProtocolError, `without section ${directory[i]}`);
    }
  });

  t.test('a plan with drafts comes back as it was', async (t) => {
    const draft = { lens: Int32Array.of(2, 0), blockTables: Int32Array.of(4), cuBlocks: Int32Array.of(0, 1, 1) };
    const drafted = { ...plan, numDrafts: Int32Array.of(1, 0), draft };
    const { directory, bytes } = packPlan(drafted);
    t.same(viewPlan(drafted.step, directory, bytes), drafted);
  });
});

t.test('step result', async (t) => {
  const stats = Float64Array.of(0.25, 0.125, 4096, 1024, 10, 10.25, 0.0625);
  const tokens = [
    [ResultSection.numTokens, Int32Array.of(1, 0)],
    [ResultSection.tokenIds, Int32Array.of(99)],
  ] as const;
  const hashes = [ResultSection.hashes, Uint32Array.of(1, 2, 3, 4)] as const;

  t.test('reads tokens, logits and statistics', async (t) => {
    const logits = Float32Array.of(1, -Infinity, 3);
    const { directory, bytes } = packSections([...tokens, [ResultSection.logits, logits], [ResultSection.stats, stats], hashes]);
    t.same(viewResult(directory, bytes), {
      numTokens: Int32Array.of(1, 0),
      tokenIds: Int32Array.of(99),
      logits,
      hidden: new Float32Array(0),
      logprobIds: new Int32Array(0),
      logprobs: new Float32Array(0),
      logprobRanks: new Int32Array(0),
      executeSeconds: 0.25,
      draftSeconds: 0.0625,
      waitSeconds: 0.125,
      exchangedBytes: 4096,
      allReduceBytes: 1024,
      startSeconds: 10,
      endSeconds: 10.25,
      hashes: Uint32Array.of(1, 2, 3, 4),
      trace: new Float64Array(0),
    });
  });

  t.test('has no logits where none were asked for', async (t) => {
    const { directory, bytes } = packSections([...tokens, [ResultSection.stats, stats], hashes]);
    t.equal(viewResult(directory, bytes).logits.length, 0);
  });

  t.test('refuses one without statistics or hashes, or with too few', async (t) => {
    const all = [ResultSection.stats, stats] as const;
    const some = [ResultSection.stats, stats.subarray(0, 5)] as const;
    const oneHash = [ResultSection.hashes, Uint32Array.of(1, 2)] as const;
    for (const sections of [
      [...tokens, hashes],
      [...tokens, some, hashes],
      [...tokens, all],
      [...tokens, all, oneHash],
    ]) {
      const { directory, bytes } = packSections(sections);
      t.throws(() => viewResult(directory, bytes), isProtocolError);
    }
  });
});

t.test('NdsError', async (t) => {
  t.test('gives a process the exit code of its own code', async (t) => {
    t.equal(new NdsError('ERR_USAGE', 'x').exitCode, 64);
    t.equal(new NdsError('ERR_CHECKPOINT', 'x').exitCode, 65);
    t.equal(new NdsError('ERR_PEER_LOST', 'x').exitCode, 69);
    t.equal(new NdsError('ERR_STEP_TIMEOUT', 'x').exitCode, 75);
    t.equal(new NdsError('ERR_MISMATCH', 'x').exitCode, 78);
    for (const code of Object.values(exitCodes)) t.ok(code > 0 && code < 126, 'no code that a shell uses for itself');
  });

  t.test('knows its codes, and no property of every object', async (t) => {
    t.ok(isNdsErrorCode('ERR_NATIVE'));
    for (const other of ['ENOENT', 'toString', '__proto__', '', undefined, 64]) t.notOk(isNdsErrorCode(other), String(other));
  });

  t.test('is made of anything thrown, and keeps it as the cause', async (t) => {
    const own = new NdsError('ERR_PLAN', 'bad row');
    t.equal(toNdsError(own), own);
    const native = Object.assign(new Error('no room'), { code: 'ERR_SYSTEM' });
    t.match(toNdsError(native, 'ERR_NATIVE'), { code: 'ERR_SYSTEM', message: 'no room', cause: native });
    const foreign = Object.assign(new Error('no file'), { code: 'ENOENT' });
    t.match(toNdsError(foreign, 'ERR_NATIVE'), { code: 'ERR_NATIVE', message: 'no file', cause: foreign });
    t.match(toNdsError('text'), { code: 'ERR_INTERNAL', message: 'text' });
    t.match(toNdsError(null), { code: 'ERR_INTERNAL', message: 'null' });
  });
});
