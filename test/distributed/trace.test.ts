/** One trace of all ranks: valid JSON whatever happens, nested events, and clocks that agree. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { runJob, type Session } from '../helpers/gang.ts';
import { fixture, ndsrun, Running } from '../helpers/launcher.ts';

const model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));
const { num_hidden_layers: numLayers } = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as { num_hidden_layers: number };

interface Event {
  readonly name: string;
  readonly ph: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur: number;
  readonly args: Readonly<Record<string, unknown>>;
}

const session: Session = {
  model,
  options: {},
  rounds: [[{ type: 'generate', prompt: 'Once upon a time', params: { temperature: 0, maxTokens: 9, ignoreEos: true } }]],
};
/** One prefill, which yields the first token, and eight decodes. */
const numSteps = 9;

function readTrace(file: string): Event[] {
  return (JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: Event[] }).traceEvents;
}

const endOf = ({ ts, dur }: Event) => ts + dur;
/** Times have three decimals; their sums may differ in the last bits. */
const inside = (inner: Event, outer: Event) => inner.ts >= outer.ts - 1e-3 && endOf(inner) <= endOf(outer) + 1e-3;
const count = (events: readonly Event[], name: string) => events.filter((event) => event.name === name).length;

function checkRanks(t: Test, file: string, worldSize: number): void {
  const events = readTrace(file);
  const spans = events.filter(({ ph }) => ph === 'X');
  for (let rank = 0; rank < worldSize; rank++) {
    t.match(
      events.filter(({ ph, pid }) => ph === 'M' && pid === rank),
      [{ args: { name: `rank ${rank}` } }, { args: { name: 'engine' } }, { args: { name: 'executor' } }],
    );
    const executor = spans.filter(({ pid, tid }) => pid === rank && tid === 1);
    const steps = executor.filter(({ name }) => name === 'step');
    t.same(
      steps.map(({ args }) => args['step']),
      Array.from({ length: numSteps }, (_, i) => i),
      `rank ${rank} has every step`,
    );
    for (const name of ['embedding', 'lm_head', 'sample']) t.equal(count(executor, name), numSteps, name);
    t.equal(count(executor, 'agree'), worldSize > 1 ? numSteps : 0);
    for (const name of ['attention_in', 'attention', 'o_proj', 'mlp']) t.equal(count(executor, name), numSteps * numLayers, name);
    for (const name of ['all_reduce', 'add']) t.equal(count(executor, name), numSteps * numLayers * 2, name);
    for (let layer = 0; layer < numLayers; layer++) t.equal(count(executor, `layer ${layer}`), numSteps);
    checkNesting(t, executor);
    const engine = spans.filter(({ pid, tid }) => pid === rank && tid === 0);
    const expected = rank > 0 ? {} : { build: numSteps, commit: numSteps, ...(worldSize > 1 && { send: numSteps }) };
    for (const [name, times] of Object.entries(expected)) t.equal(count(engine, name), times, name);
    if (rank === 0) t.ok(count(engine, 'schedule') >= numSteps);
    else t.same(engine, []);
    const isOrdered = engine.every((event, i) => i === 0 || event.ts >= endOf(engine[i - 1] as Event) - 1e-3);
    t.ok(isOrdered, 'one thing at a time');
  }
}

/** Checks that any two events of a thread are disjoint or nested. */
function checkNesting(t: Test, events: readonly Event[]): void {
  const sorted = events.toSorted((a, b) => a.ts - b.ts || b.dur - a.dur);
  const open: Event[] = [];
  let numCrossing = 0;
  for (const event of sorted) {
    while (open.length > 0 && endOf(open.at(-1) as Event) <= event.ts + 1e-3) open.pop();
    if (open.length > 0 && !inside(event, open.at(-1) as Event)) numCrossing++;
    if (event.name === 'wait') t.ok(open.length > 1, 'a wait is part of an operator');
    open.push(event);
  }
  t.equal(numCrossing, 0, 'events nest');
}

t.test('ndsrun --trace, two ranks', async (t) => {
  const file = join(t.testdir(), 'trace.json');
  await runJob(2, [session], { NDS_TRACE: file });
  checkRanks(t, file, 2);
  const ops = (pid: number, name: string) => readTrace(file).filter((event) => event.pid === pid && event.name === name);
  for (const name of ['all_reduce', 'agree', 'step']) {
    const other = ops(1, name);
    const apart = ops(0, name).filter((event, i) => event.ts > endOf(other[i] as Event) || (other[i] as Event).ts > endOf(event));
    t.same(apart, [], `every ${name} is at the same time on both ranks`);
  }
});

t.test('the load option trace: one rank, which writes it alone, and two', async (t) => {
  const dir = t.testdir();
  for (const worldSize of [1, 2]) {
    const file = join(dir, `trace-${worldSize}.json`);
    const second = join(dir, `second-${worldSize}.json`);
    const sessions = [file, second].map((trace) => ({ ...session, options: { trace } }));
    await runJob(worldSize, sessions);
    checkRanks(t, file, worldSize);
    checkRanks(t, second, worldSize);
  }
});

t.test('models loaded in turn are in one trace of the launcher', async (t) => {
  const file = join(t.testdir(), 'trace.json');
  await runJob(2, [session, session], { NDS_TRACE: file });
  for (const rank of [0, 1]) {
    const events = readTrace(file).filter(({ pid }) => pid === rank);
    t.equal(count(events, 'step'), 2 * numSteps);
  }
});

t.test('a rank that is killed leaves what it noted', async (t) => {
  const file = join(t.testdir(), 'trace.json');
  const gang = new Running(['--nproc-per-node=2', `--trace=${file}`, fixture('lost-rank.ts'), model, ''], {
    env: { OMP_NUM_THREADS: '1' },
  });
  const pids = await gang.ranks(2);
  await gang.printed(/generated/);
  process.kill(pids[1] as number, 'SIGKILL');
  t.equal((await gang.ended()).code, 137);
  const events = readTrace(file);
  for (const rank of [0, 1]) {
    const steps = events.filter(({ name, pid }) => name === 'step' && pid === rank);
    t.ok(steps.length > 0);
    t.same(
      steps.map(({ args }) => args['step']),
      steps.map((_, i) => i),
      'no step is missing in between',
    );
  }
});

t.test('a trace that cannot be written is refused before anything starts', async (t) => {
  const dir = t.testdir({ folder: {} });
  for (const file of [`${dir}/none/trace.json`, `${dir}/folder`]) {
    const { code, stdout, stderr } = await ndsrun(['--nproc-per-node=2', '--trace', file, fixture('write.ts')]);
    t.equal(code, 64);
    t.match(stderr, /Expected a writable file for --trace but received .* \[ERR_USAGE\]/);
    t.equal(stdout, '');
    await t.rejects(runJob(1, [{ ...session, options: { trace: file } }]), {
      message: /Expected a writable file for the trace but received .*: E/,
    });
  }
  const file = join(dir, 'trace.json');
  await t.rejects(runJob(2, [{ ...session, options: { trace: file } }], { NDS_TRACE: join(dir, 'other.json') }), {
    message: /Expected no load option trace beside ndsrun --trace .*other\.json but received .*trace\.json/,
  });
  t.notOk(existsSync(file));
  t.match(readTrace(join(dir, 'other.json')), [{ name: 'process_sort_index' }], 'a trace of nothing is a trace');
});
