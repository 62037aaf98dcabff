/** One trace of all ranks: valid JSON whatever happens, nested events, and clocks that agree. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { runJob, type Session } from '../helpers/gang.ts';
import { fixture, ndsrun, Running } from '../helpers/launcher.ts';
import { checkRanks, count, eventsApart, readTrace } from '../helpers/trace.ts';

const model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));
const { num_hidden_layers: numLayers } = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as { num_hidden_layers: number };

const session: Session = {
  model,
  options: {},
  rounds: [[{ type: 'generate', prompt: 'Once upon a time', params: { temperature: 0, maxTokens: 9, ignoreEos: true } }]],
};
/** One prefill, which yields the first token, and eight decodes. */
const numSteps = 9;

/** Groups of operators. */
const opsPerStep = {
  ...{ embedding: 1, lm_head: 1, sample: 1 },
  ...{ attention_in: numLayers, attention: numLayers, o_proj: numLayers, mlp: numLayers, all_reduce: numLayers * 2, add: numLayers * 2 },
};
const expected = { numSteps, numLayers, opsPerStep };

t.test('ndsrun --trace, two ranks', async (t) => {
  const file = join(t.testdir(), 'trace.json');
  await runJob(2, [session], { NDS_TRACE: file });
  checkRanks(t, file, 2, expected);
  for (const name of ['all_reduce', 'agree', 'step'])
    t.same(eventsApart(file, name), [], `every ${name} is at the same time on both ranks`);
});

t.test('the load option trace: one rank, which writes it alone, and two', async (t) => {
  const dir = t.testdir();
  for (const worldSize of [1, 2]) {
    const file = join(dir, `trace-${worldSize}.json`);
    const second = join(dir, `second-${worldSize}.json`);
    const sessions = [file, second].map((trace) => ({ ...session, options: { trace } }));
    await runJob(worldSize, sessions);
    // One rank has nothing to reduce.
    const ofRanks = worldSize === 1 ? { ...expected, opsPerStep: { ...opsPerStep, all_reduce: 0 } } : expected;
    checkRanks(t, file, worldSize, ofRanks);
    checkRanks(t, second, worldSize, ofRanks);
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
