/** What counts as a hang, who is named for it, and how states read. */
import t from 'tap';
import {
  decodeState,
  failureText,
  newestStep,
  placeOfFailure,
  type RankState,
  stateBytes,
  stateText,
} from '../../../launcher/rank-state.ts';
import { findCulprits, HangJudge, sampleMs } from '../../../launcher/watchdog.ts';
import { idle } from '../../helpers/rank-states.ts';

const running: RankState = { ...idle, phase: 'step', step: 5, operator: 'attention', layer: 7 };
const waiting = (rank: number, waitsFor: number): RankState => ({
  ...running,
  rank,
  operator: 'all-reduce',
  waitsIn: 'all-reduce',
  waitsFor,
});

t.test('a sample every eighth of the step timeout, within bounds', async (t) => {
  t.equal(sampleMs(8000), 1000);
  t.equal(sampleMs(60_000), 5000);
  t.equal(sampleMs(200), 100);
});

/** The verdicts of equal samples, one after the other. */
function verdicts(judge: HangJudge, states: readonly RankState[], numSamples: number) {
  return Array.from({ length: numSamples }, () => judge.take(states)?.kind ?? '-').join(' ');
}

t.test('a rank that is stopped before its first step hangs the others', async (t) => {
  const starting: RankState = { ...idle, phase: 'starting', step: null, isStopped: true };
  const states = [starting, { ...idle, rank: 1, phase: 'starting' as const, step: null }];
  const judge = new HangJudge(2, 800);
  t.equal(verdicts(judge, states, 8), '- - - - stalled - - -');
  const hang = judge.take(states);
  t.match(hang, { kind: 'hung', rank: 0, culprits: [0], step: null });
  t.match(hang?.message, /^Expected progress but received none for 0\.8 s: rank 0 is stopped by a signal/);
  const going = new HangJudge(2, 800);
  t.equal(
    verdicts(
      going,
      states.map((state) => ({ ...state, isStopped: false })),
      9,
    ),
    '- - - - - - - - -',
    'a slow script is none',
  );
});

t.test('a step without progress stalls at half of the timeout and hangs at the whole', async (t) => {
  const states = [waiting(0, 1), { ...idle, rank: 1 }];
  const judge = new HangJudge(2, 8000);
  t.equal(verdicts(judge, states, 9), '- - - - stalled - - - hung', 'the first sample has nothing to compare with');
  judge.reset();
  t.equal(verdicts(judge, states, 5), '- - - - stalled', 'other ranks');
  t.match(verdictAt(new HangJudge(2, 8000), states, 9), {
    kind: 'hung',
    culprits: [1],
    rank: 1,
    step: 5,
    message: 'Expected progress in step 5 but received none for 8 s: rank 1 has not begun step 5',
    lines: [
      'no rank has made progress for 8 s',
      '  rank 0 waits in all-reduce of layer 7, step 5, for rank 1',
      '  rank 1 has not begun step 5',
    ],
  });
});

function verdictAt(judge: HangJudge, states: readonly RankState[], numSamples: number) {
  for (let sample = 1; sample < numSamples; sample++) judge.take(states);
  const verdict = judge.take(states);
  if (verdict === null) throw new Error('Expected a verdict');
  return verdict;
}

t.test('the shortest timeout takes two still samples', async (t) => {
  t.equal(verdicts(new HangJudge(1, 1), [running], 3), '- stalled hung');
});

t.test('any progress of any rank starts the count anew', async (t) => {
  const judge = new HangJudge(2, 8000);
  const other = { ...running, rank: 1 };
  t.equal(verdicts(judge, [running, other], 8), '- - - - stalled - - -');
  for (const moved of [{ progress: 1 }, { step: 6, progress: 1 }, { ...waiting(1, 0) }, { ...waiting(1, 2) }, { ...idle, rank: 1 }]) {
    t.equal(verdicts(judge, [running, { ...other, ...moved }], 9), '- - - - stalled - - - hung', JSON.stringify(moved));
  }
});

t.test('no step, no hang', async (t) => {
  for (const phase of ['starting', 'loading', 'idle'] as const) {
    t.notMatch(
      verdicts(
        new HangJudge(2, 800),
        [
          { ...idle, phase },
          { ...idle, phase, rank: 1 },
        ],
        90,
      ),
      /\w/,
      phase,
    );
  }
});

t.test('a rank that is not heard of makes no sample', async (t) => {
  const judge = new HangJudge(2, 800);
  t.notMatch(verdicts(judge, [running], 90), /\w/);
  const other = { ...running, rank: 1 };
  t.equal(verdicts(judge, [other], 3), '- - -');
  for (let sample = 0; sample < 3; sample++) t.equal(judge.take([running]) ?? judge.take([other]), null);
  t.equal(judge.take([running])?.kind ?? judge.take([other])?.kind, 'stalled', 'two nodes, in turn');
});

t.test('progress between two samples counts, whichever node is heard of more often', async (t) => {
  const judge = new HangJudge(2, 800);
  const other = { ...running, rank: 1 };
  for (let sample = 0; sample < 90; sample++) {
    t.equal(judge.take([{ ...running, progress: 1 }]), null);
    t.equal(judge.take([running]), null);
    t.equal(judge.take([other]), null);
  }
});

t.test('who holds a step up', async (t) => {
  const stopped = { isStopped: true };
  const device = { ...running, operator: null, layer: null, waitsIn: 'device' };
  const cases: [name: string, states: RankState[], culprits: number[]][] = [
    ['a rank that has not begun it', [waiting(0, 1), { ...idle, rank: 1 }], [1]],
    ['all that have not', [waiting(0, 1), { ...idle, rank: 1 }, { ...idle, rank: 2 }], [1, 2]],
    ['one that is stuck in an operator', [waiting(0, 2), waiting(1, 2), { ...running, rank: 2 }], [2]],
    ['at the end of a chain', [waiting(0, 1), waiting(1, 2), { ...running, rank: 2 }], [2]],
    ['rank 0', [running, waiting(1, 0), waiting(2, 0)], [0]],
    ['one that ended it early', [waiting(0, 1), { ...idle, rank: 1, step: 5 }, { ...idle, rank: 2, step: 5 }], [1]],
    ['one that a signal has stopped while it waited', [waiting(0, 1), { ...waiting(1, 2), ...stopped }, waiting(2, 1)], [1]],
    ['a stopped one before one that does not say it waits', [running, { ...running, rank: 1, ...stopped }], [1, 0]],
    ['ranks that wait for each other', [waiting(0, 1), waiting(1, 0)], [0, 1]],
    ['on devices, the rank that is behind', [device, { ...idle, rank: 1 }], [1]],
    ['on devices alone, all of them', [device, { ...device, rank: 1 }], [0, 1]],
    ['one that still loads', [waiting(0, 1), { ...idle, rank: 1, phase: 'loading', step: null }], [1]],
  ];
  for (const [name, states, culprits] of cases) t.same(findCulprits(states, 5), culprits, name);
});

t.test('states in words', async (t) => {
  const cases: [state: RankState, newest: number | null, text: string][] = [
    [{ ...idle, phase: 'starting', step: null }, null, 'rank 0 has not begun to load'],
    [{ ...idle, phase: 'loading', step: null }, null, 'rank 0 is loading'],
    [
      { ...waiting(1, 0), phase: 'loading', operator: null, layer: null, waitsIn: 'all-gather' },
      null,
      'rank 1 waits in all-gather, loading, for rank 0',
    ],
    [{ ...idle, step: null }, null, 'rank 0 is idle'],
    [idle, null, 'rank 0 is idle after step 4'],
    [idle, 5, 'rank 0 has not begun step 5'],
    [{ ...idle, step: null }, 0, 'rank 0 has not begun step 0'],
    [{ ...idle, step: 5 }, 5, 'rank 0 has ended step 5'],
    [running, 5, 'rank 0 is in step 5, attention of layer 7'],
    [{ ...running, operator: null, layer: null }, 5, 'rank 0 is in step 5'],
    [{ ...running, isDraft: true }, 5, 'rank 0 is in step 5, attention of layer 7 of the draft'],
    [waiting(3, 1), 5, 'rank 3 waits in all-reduce of layer 7, step 5, for rank 1'],
    [
      { ...waiting(3, 1), operator: 'sampling', layer: null, waitsIn: 'all-gather' },
      5,
      'rank 3 waits in all-gather of sampling, step 5, for rank 1',
    ],
    [{ ...running, waitsIn: 'device' }, 5, 'rank 0 waits for its device, step 5'],
    [{ ...waiting(3, 1), isStopped: true }, 5, 'rank 3 is stopped by a signal in step 5, all-reduce of layer 7'],
    [{ ...idle, isStopped: true }, 5, 'rank 0 is stopped by a signal and has not begun step 5'],
    [{ ...idle, isStopped: true, phase: 'loading' }, null, 'rank 0 is stopped by a signal while loading'],
  ];
  for (const [state, newest, text] of cases) t.equal(stateText(state, newest), text);
});

t.test('where a rank failed', async (t) => {
  t.same(placeOfFailure(running), { phase: 'step', step: 5 });
  t.same(placeOfFailure({ ...idle, failedStep: 4 }), { phase: 'step', step: 4 });
  t.equal(failureText(running), 'in step 5, attention of layer 7');
  t.equal(failureText({ ...idle, failedStep: 4 }), 'in step 4');
  t.equal(failureText({ ...idle, phase: 'loading' }), 'while loading');
  t.equal(failureText(idle), '');
});

t.test('a block of zeros is a rank that has begun nothing', async (t) => {
  const state = decodeState(3, Buffer.alloc(stateBytes), false);
  t.same(state, { ...idle, rank: 3, phase: 'starting', step: null });
  t.equal(newestStep([state]), null);
});
