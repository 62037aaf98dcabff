/** Plan logs alone: writing and reading, a truncated log told from a broken one, and the named difference. */
import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { LoadMessage } from '../../../protocol/messages.ts';
import { packSections } from '../../../protocol/sections.ts';
import { packPlan } from '../../../protocol/step-plan.ts';
import { packLasting, ResultSection, viewLasting } from '../../../protocol/step-result.ts';
import { encodePlain } from '../../../protocol/wire.ts';
import { type LoadRecord, PlanRecorder, readPlanLog } from '../../../rank/observe/plan-log.ts';
import { firstDifference, SlotLengths } from '../../../rank/observe/replay.ts';
import { goodPlan } from '../../helpers/next-token.ts';

const message: LoadMessage = {
  type: 'load',
  model: '/models/some',
  dtype: 'float32',
  kvCacheDtype: 'float32',
  quantization: 'none',
  blockSize: 32,
  numBlocks: 4,
  maxModelLen: 64,
  maxNumSeqs: 2,
  maxNumBatchedTokens: 48,
  maxNumLogitRows: 8,
  sampleVocabSize: 40,
  device: 'cpu',
  deterministic: false,
  numThreads: null,
  trace: false,
  draftRule: 'coupled',
  draft: null,
};
const load: LoadRecord = { type: 'load', version: '9.9.9', isa: 'portable', worldSize: 2, modelHash: 'abc', draftHash: null, message };

/** A result in native's layout. */
function result(tokenId: number, { planHash = 1, outputHash = 2, seconds = 0.5 } = {}) {
  return packSections([
    [ResultSection.numTokens, Int32Array.of(1)],
    [ResultSection.tokenIds, Int32Array.of(tokenId)],
    [ResultSection.logits, new Float32Array(0)],
    [ResultSection.stats, new Float64Array(6).fill(seconds)],
    [ResultSection.hashes, Uint32Array.of(planHash, 0, outputHash, 0)],
  ]);
}

/** Writes a log of one load with a plan and its result; returns the offset at which each record ends. */
function writeLog(path: string): number[] {
  const ends: number[] = [];
  const { directory, bytes } = packPlan(goodPlan);
  const note = () => ends.push(readFileSync(path).length);
  const recorder = new PlanRecorder(path, false);
  note();
  recorder.load(load);
  note();
  recorder.plan(0, directory, bytes);
  note();
  const { directory: sections, bytes: data } = result(8);
  recorder.result(0, sections, data);
  note();
  recorder.close();
  return ends;
}

t.test('what is written is read back, each record as soon as it is written', async (t) => {
  const path = join(t.testdir(), 'log');
  const ends = writeLog(path);
  t.same(
    ends,
    ends.toSorted((a, b) => a - b),
  );
  t.equal(new Set(ends).size, 4);
  const [first, plan, output, ...rest] = [...readPlanLog(path)];
  t.same(rest, []);
  t.same(first, load);
  t.same(plan, { type: 'plan', step: 0, ...packPlan(goodPlan) });
  t.same(output, { type: 'result', step: 0, ...packLasting(result(8).directory, result(8).bytes) });
});

t.test('loads in turn are appended, a new log begins empty', async (t) => {
  const path = join(t.testdir(), 'log');
  for (const append of [false, true, true]) {
    const recorder = new PlanRecorder(path, append);
    recorder.load(load);
    recorder.close();
  }
  t.same(
    [...readPlanLog(path)].map(({ type }) => type),
    ['load', 'load', 'load'],
  );
  new PlanRecorder(path, false).close();
  t.same([...readPlanLog(path)], []);
  t.throws(() => new PlanRecorder(join(path, 'in-a-file'), false), { code: 'ERR_USAGE', message: /Expected a writable file for record/ });
});

t.test('only what lasts is kept of a result', async (t) => {
  const [a, b] = [result(8, { seconds: 1 }), result(8, { seconds: 2 })].map(({ directory, bytes }) => packLasting(directory, bytes));
  t.same(a, b, 'times are not in it');
  t.same(
    [...viewLasting(result(8).directory, result(8).bytes).keys()],
    [ResultSection.numTokens, ResultSection.tokenIds, ResultSection.hashes],
  );
});

t.test('a log that is cut anywhere is read up to the cut', async (t) => {
  const path = join(t.testdir(), 'log');
  const ends = writeLog(path);
  const whole = readFileSync(path);
  for (let size = whole.length; size >= (ends[0] as number); size--) {
    writeFileSync(path, whole);
    truncateSync(path, size);
    const numWhole = ends.filter((end) => end <= size).length - 1;
    const types = [...readPlanLog(path)].map(({ type }) => type);
    const torn = ends.includes(size) ? [] : ['torn'];
    t.same(types, [...['load', 'plan', 'result'].slice(0, numWhole), ...torn], `${size} bytes`);
  }
});

t.test('what is no log, or breaks its format, is refused', async (t) => {
  const path = join(t.testdir(), 'log');
  const read = () => [...readPlanLog(path)];
  t.throws(read, { code: 'ERR_NOT_FOUND' });
  for (const content of ['', '{}', 'NDSPLAN2', 'x'.repeat(100)]) {
    writeFileSync(path, content);
    t.throws(read, { code: 'ERR_PLAN_LOG', message: /Expected a plan log at byte 0 of/ });
  }
  const plan = { type: 'plan', step: 0, directory: [] };
  const wrong: [header: unknown, message: RegExp][] = [
    [7, /Expected a load, a plan or a result at byte 8/],
    [null, /Expected a load, a plan or a result/],
    [{ type: 'unknown' }, /received "unknown"/],
    [{ ...plan, step: '0' }, /Expected a plan with its step and directory/],
    [{ ...plan, directory: [0.5] }, /Expected a plan with its step and directory/],
    [{ ...plan, directory: null }, /Expected a plan with its step and directory/],
    [{ type: 'load', version: '1', isa: 'x', worldSize: 1, modelHash: 'y' }, /Expected a record at byte 8/],
  ];
  for (const [header, expected] of wrong) {
    const head = encodePlain(header);
    const lengths = Buffer.alloc(8);
    lengths.writeUInt32LE(head.length);
    writeFileSync(path, Buffer.concat([Buffer.from('NDSPLAN1'), lengths, head]));
    t.throws(read, { code: 'ERR_PLAN_LOG', message: expected }, JSON.stringify(header));
  }
  writeLog(path);
  appendFileSync(path, Buffer.alloc(64, 0xff));
  t.throws(read, { code: 'ERR_PLAN_LOG', message: /Expected a header of at most 1048576 bytes/ });
});

t.test('no byte that is changed goes unnoticed by both the reader and the comparison, or crashes either', async (t) => {
  const path = join(t.testdir(), 'log');
  const ends = writeLog(path);
  const whole = readFileSync(path);
  // Of the result's record only, as native hashes the plan's bytes.
  for (let at = ends[2] as number; at < whole.length; at++) {
    const copy = Buffer.from(whole);
    copy[at] = (copy[at] as number) ^ 0xff;
    writeFileSync(path, copy);
    try {
      for (const record of readPlanLog(path)) if (record.type === 'result') firstDifference(goodPlan, record, result(8), new SlotLengths());
    } catch (error) {
      t.match(error, { name: 'NdsError', code: /ERR_PLAN_LOG/ }, `byte ${at}`);
    }
  }
});

t.test('the first difference, in words', async (t) => {
  const lasting = (tokenId: number, hashes = {}) => {
    const { directory, bytes } = result(tokenId, hashes);
    return packLasting(directory, bytes);
  };
  const difference = (recorded: ReturnType<typeof lasting>, replayed = result(8)) =>
    firstDifference(goodPlan, recorded, replayed, new SlotLengths());
  t.equal(difference(lasting(8)), null);
  t.equal(difference(lasting(9)), 'slot 0, position 3: recorded token 9, replayed 8');
  t.equal(difference(lasting(9, { planHash: 5 })), 'the plan is not the one that was recorded');
  t.equal(difference(lasting(8, { outputHash: 5 })), 'the logits or hidden states that were handed back');
  const none = packSections([
    [ResultSection.numTokens, Int32Array.of(0)],
    [ResultSection.tokenIds, new Int32Array(0)],
    [ResultSection.hashes, Uint32Array.of(1, 0, 2, 0)],
  ]);
  t.equal(difference(none), 'slot 0, position 3: recorded 0 tokens, replayed 1');
});

t.test('the position of a difference is exact, however many drafts were under way when the plan was made', async (t) => {
  const lengths = new SlotLengths();
  const next = { ...goodPlan, admitSlots: new Int32Array(0), admitLens: new Int32Array(0) };
  // Three drafts after the newest token, twice; the second plan is made before it is known that one of three was
  // accepted.
  const verify = { ...next, tokenIds: Int32Array.of(-1, 5, 6, 7), cuQueryLens: Int32Array.of(0, 4), numDrafts: Int32Array.of(3) };
  t.same(lengths.advance(goodPlan, [1]), [3]);
  t.same(lengths.advance({ ...verify, contextLens: Int32Array.of(7) }, [2]), [4]);
  t.same(lengths.advance({ ...verify, contextLens: Int32Array.of(11) }, [4]), [6]);
  t.same(
    lengths.advance({ ...next, tokenIds: Int32Array.of(-1), cuQueryLens: Int32Array.of(0, 1), contextLens: Int32Array.of(14) }, [1]),
    [10],
  );
  t.same(lengths.advance(goodPlan, [1]), [3], 'another sequence takes the slot');
});
