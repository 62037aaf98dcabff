/** The drawing of a trace: the chosen step, and every operator and exchange in it. */
import t from 'tap';
import { drawStep, shortestStep } from '../../../scripts/draw-trace.mjs';

/** A step of two ranks with one layer; rank 1 enters the all-reduce `lag` microseconds after rank 0. */
function twoRanks(step: number, at: number, lag: number) {
  const span = (pid: number, name: string, ts: number, dur: number, args?: Record<string, number>) => ({
    ph: 'X',
    pid,
    name,
    ts: at + ts,
    dur,
    ...(args && { args }),
  });
  return [0, 1].flatMap((rank) => [
    span(rank, 'step', 0, 20 + lag, { step, numSeqs: 1, waitMicroseconds: 0 }),
    span(rank, 'layer 0', 0, 20 + lag),
    span(rank, 'mlp', 0, 10 + rank * lag, { step }),
    span(rank, 'all_reduce', 10 + rank * lag, 10 + lag - rank * lag, { step }),
    span(rank, 'wait', 10 + rank * lag, 1),
  ]);
}

const events = [...twoRanks(0, 100, 30), ...twoRanks(1, 200, 5), { ph: 'M', pid: 0, name: 'process_name', ts: 0, dur: 0 }];

t.test('takes the shortest step, from its start', async (t) => {
  const mlp = { name: 'mlp', start: 0 };
  t.same(shortestStep(events), [
    {
      rank: 0,
      operators: [
        { ...mlp, end: 10 },
        { name: 'all_reduce', start: 10, end: 25 },
      ],
      layers: [{ name: 'layer 0', start: 0, end: 25 }],
    },
    {
      rank: 1,
      operators: [
        { ...mlp, end: 15 },
        { name: 'all_reduce', start: 15, end: 25 },
      ],
      layers: [{ name: 'layer 0', start: 0, end: 25 }],
    },
  ]);
});

t.test('leaves out a step that a rank did not end', async (t) => {
  const torn = events.filter(({ pid, ts }) => pid === 0 || ts < 200);
  t.equal(shortestStep(torn)[0]?.layers[0]?.end, 50);
  const apart = events.filter(({ pid, ts }) => (pid === 0) === ts < 200);
  t.throws(() => shortestStep(apart), /step of every rank/);
});

t.test('draws a box for each operator, twice, a band for each exchange, and a legend', async (t) => {
  const svg = drawStep(shortestStep(events));
  t.equal(svg.match(/height="36"/g)?.length, 2 * 4);
  t.equal(svg.match(/class="meet"/g)?.length, 2);
  t.equal(svg.match(/width="16"/g)?.length, 2);
  t.match(svg, /one decode step on 2 ranks: 25 µs/);
});

t.test('refuses an operator that it has no colour for', async (t) => {
  const unknown = events.map((event) => (event.name === 'mlp' ? { ...event, name: 'moe' } : event));
  t.throws(() => drawStep(shortestStep(unknown)), /received moe/);
});
