/** Traces alone: the group of an operator, the lines of spans, and one file from several parts. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { emptyResult } from '../../../protocol/step-result.ts';
import { joinTrace, tracePart } from '../../../protocol/trace-file.ts';
import { buildProgram, readModel } from '../../../rank/model/index.ts';
import { openTrace } from '../../../rank/observe/trace.ts';
import { executorSpans, formatNames, formatSpan, groupOperators, groupPrograms } from '../../../rank/observe/trace-events.ts';
import type { OpSpec } from '../../../rank/program-spec.ts';
import { goldenNames, goldenPath } from '../../helpers/goldens.ts';

const sizes = {
  dtype: 'float32',
  kvCacheDtype: 'float32',
  quantization: 'none',
  blockSize: 32,
  numBlocks: 4,
  maxModelLen: 64,
  maxNumSeqs: 2,
  maxNumBatchedTokens: 32,
  maxNumLogitRows: 4,
  sampleVocabSize: 200,
} as const;

t.test('every operator of every model has a group and the layer that it says itself', async (t) => {
  for (const name of goldenNames) {
    const model = readModel(goldenPath(name));
    const { ops } = buildProgram(model, { ...sizes, rank: 0, worldSize: 1 });
    const groups = groupOperators(ops);
    ops.forEach((op, i) => {
      if ('layer' in op) t.equal(groups[i]?.layer, op.layer, `${name}: ${op.op}`);
    });
    const inLayers = groups.filter(({ layer }) => layer !== null);
    t.equal(new Set(inLayers.map(({ layer }) => layer)).size, model.config.numHiddenLayers);
    const names = (layer: number | null) => groups.filter((group) => group.layer === layer).map((group) => group.name);
    for (let layer = 0; layer < model.config.numHiddenLayers; layer++) {
      t.same(
        [...new Set(names(layer))],
        ['attention_in', 'attention', 'o_proj', 'all_reduce', 'add', 'mlp'],
        `${name}, layer ${layer}, in order of appearance`,
      );
      t.equal(names(layer).at(-1), 'add');
    }
    t.same(names(null), ['embedding', 'hidden_states', 'lm_head', 'lm_head', 'lm_head', 'sample']);
  }
});

t.test('operators of a draft model come after those of the model, and are told apart', async (t) => {
  const programs = goldenNames.slice(0, 2).map((name) => buildProgram(readModel(goldenPath(name)), { ...sizes, rank: 0, worldSize: 1 }));
  const [target, draft] = programs.map(({ ops }) => ops) as [OpSpec[], OpSpec[]];
  const groups = groupPrograms(target, draft);
  t.same(groups.slice(0, target.length), groupOperators(target));
  t.same(
    groups.slice(target.length),
    groupOperators(draft).map((group) => ({ ...group, isDraft: true })),
  );
  // A pass of the draft model, then one of the target; each operator takes a second.
  const order = [...draft.map((_, i) => target.length + i), ...target.map((_, i) => i)];
  const trace = Float64Array.from(order.flatMap((op, i) => [op, i, i + 1, 0]));
  const names = executorSpans(0, { ...emptyResult, trace }, groups).map(({ name }) => name);
  t.same(
    [...new Set(names)].filter((name) => name.includes('layer')),
    [
      ...new Set(groupOperators(draft).flatMap(({ layer }) => (layer === null ? [] : `draft layer ${layer}`))),
      ...new Set(groupOperators(target).flatMap(({ layer }) => (layer === null ? [] : `layer ${layer}`))),
    ],
  );
  for (const name of ['embedding', 'sample', 'draft embedding', 'draft sample'])
    t.equal(names.filter((other) => other === name).length, 1, name);
});

t.test('neighbours of one group are one span, waits lie in theirs', async (t) => {
  const groups = [
    { name: 'embedding', layer: null },
    { name: 'attention_in', layer: 0 },
    { name: 'attention_in', layer: 0 },
    { name: 'all_reduce', layer: 0 },
    { name: 'all_reduce', layer: 1 },
  ];
  const trace = Float64Array.from(
    [
      [0, 1, 2, 0.25],
      [1, 2, 3, 0],
      [2, 3, 4, 0],
      [3, 4, 5, 0.5],
      [4, 5, 6, 9],
      [-1, 7, 8, 0],
    ].flat(),
  );
  const result = { ...emptyResult, numTokens: Int32Array.of(1, 0), tokenIds: Int32Array.of(3), logits: new Float32Array(0), trace };
  const spans = executorSpans(7, { ...result, startSeconds: 0.5, endSeconds: 9, waitSeconds: 0.75 }, groups);
  t.same(
    spans.map(({ name, start, end }) => [name, start, end]),
    [
      ['step', 0.5, 9],
      ['layer 0', 2, 5],
      ['layer 1', 5, 6],
      ['embedding', 1, 2],
      ['attention_in', 2, 4],
      ['all_reduce', 4, 5],
      ['all_reduce', 5, 6],
      ['agree', 7, 8],
      ['wait', 1, 1.25],
      ['wait', 4, 4.5],
      ['wait', 5, 6],
    ],
  );
  t.same(spans[0]?.args, { step: 7, numSeqs: 2, waitMicroseconds: 0.75e6 });
});

t.test('a line is an event in microseconds', async (t) => {
  const line = formatSpan(3, { name: 'a "b"', thread: 1, start: 1000.0000012, end: 1000.5, args: { step: 2 } });
  t.equal(line, '{"name":"a \\"b\\"","ph":"X","pid":3,"tid":1,"args":{"step":2},"ts":1000000001.200,"dur":499998.800},\n');
  t.match(JSON.parse(`[${formatNames(3)}0]`), [
    { ph: 'M', pid: 3, name: 'process_name', args: { name: 'rank 3' } },
    { tid: 0, args: { name: 'engine' } },
    { tid: 1, args: { name: 'executor' } },
    0,
  ]);
});

t.test('parts become one file, without a line that was not finished', async (t) => {
  const dir = t.testdir();
  const file = join(dir, 'trace.json');
  const long = `{"name":"${'x'.repeat(3 << 20)}"},\n`;
  writeFileSync(tracePart(dir, 0), `{"name":"a"},\n${long}{"name":"b"},\n`);
  writeFileSync(tracePart(dir, 2), '{"name":"c"},\n{"name":"torn');
  joinTrace([dir], 3, file);
  const { traceEvents } = JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: { name: string }[] };
  t.same(
    traceEvents.map(({ name }) => name.slice(0, 20)),
    ['a', 'x'.repeat(20), 'b', 'c', 'process_sort_index'],
  );
  t.throws(() => joinTrace([dir], 1, join(dir, 'none', 'trace.json')), { code: 'ERR_SYSTEM', message: /Expected to write the trace to/ });
});

t.test('a file is valid before anything is noted, between any two steps, and at the end', async (t) => {
  const file = join(t.testdir(), 'trace.json');
  const names = () => (JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: { name: string }[] }).traceEvents.map(({ name }) => name);
  const trace = openTrace(file, null);
  const head = ['process_name', 'thread_name', 'thread_name'];
  t.same(names(), [...head, 'process_sort_index']);
  t.equal(
    trace.time('schedule', () => 5),
    5,
  );
  const result = { ...emptyResult, numTokens: Int32Array.of(1), tokenIds: Int32Array.of(3), logits: new Float32Array(0) };
  trace.step(0, result);
  t.same(names(), [...head, 'schedule', 'step', 'process_sort_index']);
  trace.time('commit', () => {});
  trace.close();
  trace.close();
  t.same(names(), [...head, 'schedule', 'step', 'commit', 'process_sort_index']);
});
