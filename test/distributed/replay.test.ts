/** Plan logs of real runs: recorded on two ranks, replayed on other numbers, and reported differences. */
import { cpSync, existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { StepResult } from '../../protocol/step-result.ts';
import { viewLasting } from '../../protocol/step-result.ts';
import { type PlanRecord, PlanRecorder, readPlanLog, type StepRecord } from '../../rank/observe/plan-log.ts';
import { type Call, runJob, type Session } from '../helpers/gang.ts';
import { type Ended, fixture, ndsrun, Running } from '../helpers/launcher.ts';
import { part } from '../helpers/scale.ts';

const model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));
const options = { dtype: 'float32', maxNumBatchedTokens: 16, maxNumSeqs: 4 } as const;
const isa = process.env['NDS_ISA'] ?? null;

/** Chunked prefill, decodes, filters and returned logits. */
const calls: Call[] = [
  {
    type: 'generate',
    prompt: { promptTokenIds: Array.from({ length: 40 }, (_, i) => (i * 37 + 5) % 2000) },
    params: { seed: 1, maxTokens: 12, ignoreEos: true },
  },
  {
    type: 'generate',
    prompt: 'Once upon a time',
    params: { temperature: 0.9, topK: 20, topP: 0.9, seed: 2, maxTokens: 20, ignoreEos: true },
  },
  { type: 'generate', prompt: 'Tom', params: { temperature: 0, seed: 3, maxTokens: 16, ignoreEos: true } },
  { type: 'logits', promptTokenIds: [1, 2, 3, 4, 5] },
];
const session: Session = { model, options, rounds: [calls, calls.slice(1, 2)] };

const folder = t.testdir();

async function record(dir: string, worldSize = 2, sessions = [session]): Promise<string> {
  const file = join(dir, `${worldSize}.plans`);
  await runJob(worldSize, sessions, { NDS_RECORD: file });
  return file;
}

let onTwoRanks: Promise<string> | undefined;
/** A log of two ranks, written once and only read. */
const recorded = (): Promise<string> => (onTwoRanks ??= record(folder));

const replay = (file: string, ...args: string[]): Promise<Ended> =>
  ndsrun(['replay', file, '--quiet', ...args], { env: { OMP_NUM_THREADS: '1', ...(isa !== null && { NDS_ISA: isa }) } });

const numResults = (file: string) => [...readPlanLog(file)].filter(({ type }) => type === 'result').length;

function expectIdentical(t: Test, { code, stdout, stderr }: Ended, numSteps: number): void {
  t.equal(code, 0, stderr);
  t.equal(stdout, `${numSteps} steps identical\n`);
  t.equal(stderr, '');
}

/** Rewrites a log with some records changed. */
function rewrite(file: string, to: string, change: (record: PlanRecord) => PlanRecord): string {
  const recorder = new PlanRecorder(to, false);
  for (const old of readPlanLog(file)) {
    const changed = change(old);
    if (changed.type === 'load') recorder.load(changed);
    else if (changed.type === 'plan') recorder.plan(changed.step, changed.directory, changed.bytes);
    else if (changed.type === 'result') recorder.result(changed.step, changed.directory, changed.bytes);
  }
  recorder.close();
  return to;
}

/** The record with the first value of a section changed. */
function altered(record: StepRecord, sectionId: number): StepRecord {
  const { directory } = record;
  const bytes = Uint8Array.from(record.bytes);
  const at = directory.findIndex((id, i) => i % 3 === 0 && id === sectionId);
  bytes[directory[at + 1] as number] = (bytes[directory[at + 1] as number] as number) ^ 1;
  return { ...record, bytes };
}

t.test('two ranks recorded, one, two and three ranks replayed', async (t) => {
  const dir = t.testdir();
  const file = await recorded();
  const numSteps = numResults(file);
  t.ok(numSteps >= 40, "at least one for each of the longest texts' tokens");
  for (const worldSize of part([1, 3, 2], 2)) expectIdentical(t, await replay(file, `--nproc-per-node=${worldSize}`), numSteps);

  t.test('one rank records the same steps and results', async (t) => {
    const alone = await record(dir, 1);
    const [[load, ...steps], [otherLoad, ...otherSteps]] = [[...readPlanLog(file)], [...readPlanLog(alone)]] as [
      PlanRecord[],
      PlanRecord[],
    ];
    t.match(load, { type: 'load', worldSize: 2 });
    t.match(otherLoad, { type: 'load', worldSize: 1 });
    const sorted = (records: PlanRecord[]) => (records as StepRecord[]).toSorted((a, b) => a.step - b.step || a.type.localeCompare(b.type));
    t.ok(steps.length === otherSteps.length && JSON.stringify(sorted(steps)) === JSON.stringify(sorted(otherSteps)));
  });

  t.test('a token that was altered is found in its step', async (t) => {
    const step = numSteps - 5;
    const bad = rewrite(file, join(dir, 'token'), (old) => (old.type === 'result' && old.step === step ? altered(old, 2) : old));
    const { code, stdout, stderr } = await replay(bad, '--nproc-per-node=2');
    t.equal(code, 78);
    t.equal(stdout, '');
    const plan = [...readPlanLog(file)].find((old) => old.type === 'result' && old.step === step) as StepRecord;
    const token = (viewLasting(plan.directory, plan.bytes).get(2) as StepResult['tokenIds'])[0] as number;
    t.match(
      stderr,
      new RegExp(
        `step ${step} as it was recorded but it differs: slot \\d+, position \\d+: recorded token ${token ^ 1}, replayed ${token}.*ERR_MISMATCH`,
      ),
    );
    t.notMatch(stderr, /^\s+at /m, 'no stack of ours');
  });

  t.test('a plan that was altered is found too', async (t) => {
    const seeds = rewrite(file, join(dir, 'seeds'), (old) => (old.type === 'plan' && old.step === 0 ? altered(old, 11) : old));
    const changed = await replay(seeds, '--nproc-per-node=1');
    t.equal(changed.code, 78);
    t.match(changed.stderr, /step 0 as it was recorded but it differs: the plan is not the one that was recorded/);
    const slots = rewrite(file, join(dir, 'slots'), (old) => (old.type === 'plan' && old.step === 3 ? altered(old, 3) : old));
    const broken = await replay(slots, '--nproc-per-node=2');
    t.equal(broken.code, 70);
    t.match(broken.stderr, /Plan 3: expected cuQueryLens.*ERR_PLAN/);
  });

  t.test('a log without its end', async (t) => {
    const cut = join(dir, 'cut');
    cpSync(file, cut);
    truncateSync(cut, readFileSync(file).length - 3);
    const { code, stdout, stderr } = await replay(cut, '--nproc-per-node=1');
    t.same([code, stdout], [0, `${numSteps - 1} steps identical\n`]);
    t.match(stderr, /^warning: .*cut ends inside a record, at byte \d+\nwarning: 1 more ran to their end, but the log does not say/);
  });

  t.test('another model is refused, another instruction set is warned of', async (t) => {
    const other = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
    const refused = await replay(file, '--nproc-per-node=2', '--model', other);
    t.equal(refused.code, 78);
    t.match(refused.stderr, /Expected the recorded model \(hash [0-9a-f]{16}\) but received .*story-180k.*ERR_MISMATCH/);
    const copy = join(dir, 'copy');
    cpSync(model, copy, { recursive: true });
    const moved = rewrite(file, join(dir, 'moved'), (old) =>
      old.type === 'load' ? { ...old, isa: 'abacus', version: '0.0.0', message: { ...old.message, model: '/gone' } } : old,
    );
    const found = await replay(moved, '--nproc-per-node=1', '--model', copy);
    t.same([found.code, found.stdout], [0, `${numSteps} steps identical\n`]);
    t.match(
      found.stderr,
      /^warning: recorded by version 0\.0\.0, .*\nwarning: recorded with instruction set abacus, replayed with \w+, whose tokens may differ/,
    );
    t.equal((await replay(moved, '--nproc-per-node=1')).code, 65, 'the model is not where it was');
  });
});

t.test('a draft model that has moved', async (t) => {
  const dir = t.testdir();
  const draft = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
  const drafting: Session = { ...session, options: { ...options, speculativeConfig: { model: draft, adaptiveK: false } } };
  const file = await record(dir, 1, [drafting]);
  const numSteps = numResults(file);
  const moved = rewrite(file, join(dir, 'moved'), (old) =>
    old.type === 'load' && old.message.draft !== null
      ? { ...old, message: { ...old.message, draft: { ...old.message.draft, model: '/gone' } } }
      : old,
  );
  t.equal((await replay(moved, '--nproc-per-node=1')).code, 65, 'it is not where it was');
  expectIdentical(t, await replay(moved, '--nproc-per-node=2', '--draft', draft), numSteps);
  const other = await replay(moved, '--nproc-per-node=1', '--draft', model);
  t.equal(other.code, 78);
  t.match(other.stderr, /Expected the recorded draft model \(hash [0-9a-f]{16}\) but received .*story-5m.*ERR_MISMATCH/);
  const plain = await replay(await recorded(), '--nproc-per-node=1', '--draft', draft);
  t.equal(plain.code, 64);
  t.match(plain.stderr, /Expected no --draft for a load without a draft model.*ERR_USAGE/);
});

t.test('models loaded in turn are replayed in turn', async (t) => {
  const small: Session = {
    model: fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url)),
    options,
    rounds: [calls.slice(1, 2)],
  };
  const file = await record(t.testdir(), 2, [session, small, session]);
  t.equal([...readPlanLog(file)].filter(({ type }) => type === 'load').length, 3);
  expectIdentical(t, await replay(file, '--nproc-per-node=2'), numResults(file));
});

t.test('the load option record', async (t) => {
  const dir = t.testdir();
  const file = join(dir, 'plans');
  await runJob(2, [{ ...session, options: { ...options, record: file } }]);
  expectIdentical(t, await replay(file, '--nproc-per-node=1'), numResults(file));
  const both = runJob(1, [{ ...session, options: { ...options, record: join(dir, 'other') } }], { NDS_RECORD: file });
  await t.rejects(both, { message: /Expected no load option record beside ndsrun --record/ });
  t.notOk(existsSync(join(dir, 'other')));
});

t.test('a gang that is killed leaves a log that can be replayed', async (t) => {
  const file = join(t.testdir(), 'plans');
  const gang = new Running(['--nproc-per-node=2', '--record', file, fixture('lost-rank.ts'), model, ''], { env: { OMP_NUM_THREADS: '1' } });
  const pids = await gang.ranks(2);
  await gang.printed(/generated/);
  process.kill(pids[0] as number, 'SIGKILL');
  t.equal((await gang.ended()).code, 137);
  const { code, stdout } = await replay(file, '--nproc-per-node=2');
  t.same([code, stdout], [0, `${numResults(file)} steps identical\n`]);
});

t.test('what replay refuses', async (t) => {
  const dir = t.testdir({ text: 'not a log', empty: '' });
  const cases: [args: string[], code: number, message: RegExp][] = [
    [['replay'], 64, /Expected FILE but received 0 operands/],
    [['replay', 'a', 'b'], 64, /received 2 operands/],
    [['replay', '--record=x', 'a'], 64, /Expected a known option but received --record/],
    [['replay', '--modle=x', 'a'], 64, /did you mean --model\?/],
    [['replay', '--nproc-per-node=2', join(dir, 'none')], 64, /Expected a plan log but received.*ERR_NOT_FOUND/],
    [['replay', '--nproc-per-node=1', dir], 64, /which is no file.*ERR_NOT_FOUND/],
    [['replay', '--nproc-per-node=2', join(dir, 'text')], 65, /Expected a plan log at byte 0.*ERR_PLAN_LOG/],
    [['replay', '--nproc-per-node=1', join(dir, 'empty')], 65, /Expected a plan log at byte 0.*ERR_PLAN_LOG/],
    [['--record', join(dir, 'none', 'x'), fixture('write.ts')], 64, /Expected a writable file for --record/],
  ];
  for (const [args, expected, message] of part(cases, 2)) {
    const { code, stdout, stderr } = await ndsrun(args);
    t.equal(code, expected, args.join(' '));
    t.match(stderr, message);
    t.equal(stdout, '');
  }
  t.match((await ndsrun(['replay', '--help'])).stdout, /says which is the first to differ/);
  const file = join(dir, 'unused');
  writeFileSync(file, 'old');
  await ndsrun(['--dry-run', '--record', file, fixture('write.ts')]);
  t.equal(readFileSync(file, 'utf8'), 'old', 'a dry run writes nothing');
});
