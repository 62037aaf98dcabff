/** A rank of `ndsrun bench MODEL`, `bench latency` and `bench throughput`: `bench-rank REQUEST`. */
import { rmSync } from 'node:fs';
import { NdsError } from '../../protocol/errors.ts';
import { readRankEnv } from '../../protocol/rank-env.ts';
import { resolveModel } from '../../rank/hub/resolve-model.ts';
import { LLM } from '../../rank/index.ts';
import { type Model, readModel } from '../../rank/model/index.ts';
import { type Case, casesOf } from '../bench/cases.ts';
import { measureRounds, type Rounds } from '../bench/measure.ts';
import { describeModel, recordOf } from '../bench/model-records.ts';
import type { ModelBenchRequest } from '../bench/model-request.ts';
import { writeReport } from '../bench/output.ts';
import type { BenchModel, BenchReport } from '../bench/record.ts';
import { renderTable } from '../bench/render-text.ts';
import { makeModel } from '../bench/synthetic-model.ts';
import { openBar } from '../progress-bar.ts';
import { describeRun } from './bench-machine.ts';
import { describeSpeculation } from './generate-output.ts';
import { rankMain } from './rank-main.ts';
import { loadWithBar } from './rank-progress.ts';

const request = JSON.parse(process.argv[2] ?? '') as ModelBenchRequest;
await rankMain(main);

async function main(): Promise<void> {
  const env = readRankEnv();
  // Packed shards of made-up weights would outlive the command.
  if (request.isShape) process.env['NDS_SHARD_CACHE'] = 'off';
  // Other ranks never return from the load.
  if (env !== null && env.rank > 0) await LLM.load(request.model, request.load);
  const path = request.isShape ? makeShape(env?.runDir) : request.model;
  const start = performance.now();
  await using llm = await loadWithBar(path, request.load, request.quiet);
  const loadSeconds = (performance.now() - start) / 1000;
  const model = readModel(await resolveModel(path));
  // All ranks have the weights mapped.
  if (request.isShape) rmSync(path, { recursive: true });
  const cases = casesFor(llm);
  const bar = openBar('measuring', 'items', request.quiet);
  const rounds = await measureRounds(llm, model.config.vocabSize, cases, request, (done, total) => bar.update(done, total));
  bar.end();
  print(llm, model, describeModel(llm, model, request, loadSeconds), cases, rounds);
}

function makeShape(runDir: string | undefined): string {
  if (runDir === undefined) throw new NdsError('ERR_INTERNAL', 'Expected a run folder for --shape but received none');
  const bar = openBar('making weights', 'bytes', request.quiet);
  const folder = makeModel(request.model, runDir, (done, total) => bar.update(done, total));
  bar.end();
  return folder;
}

function casesFor(llm: LLM): Case[] {
  const { promptLens, ...axes } = request.axes;
  const longest = llm.options.maxModelLen - 1 - Math.max(...axes.depths);
  return casesOf({ ...axes, promptLens: promptLens ?? [Math.max(1, Math.min(512, longest))] });
}

function print(llm: LLM, model: Model, described: BenchModel, cases: readonly Case[], { numWarmups, measured }: Rounds): void {
  const { speculation } = llm.stats();
  const run = describeRun(llm.options.device, llm.shards.length);
  const { config } = model;
  const records = cases.map((one, i) =>
    recordOf({ llm, config, run, described, one, measured: measured.flatMap((round) => round[i] ?? []), numWarmups, request }),
  );
  const name = request.command === 'model' ? 'bench' : `bench ${request.command}`;
  const report: BenchReport = {
    title: `ndsrun ${name} ${request.isShape ? '--shape ' : ''}${request.model}`,
    records,
    extra: { speculation },
  };
  const drafts = speculation === null ? '' : `\nwith drafts: ${describeSpeculation(speculation)}\n`;
  writeReport(report, request, (one) => `${renderTable(one)}${drafts}`);
}
