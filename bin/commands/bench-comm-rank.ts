/** A rank of `ndsrun bench comm`: `bench-comm-rank REQUEST`. */
import { NdsError } from '../../protocol/errors.ts';
import { readRankEnv } from '../../protocol/rank-env.ts';
import { native } from '../../rank/native.ts';
import { bytesInWords } from '../bench/format.ts';
import { writeReport } from '../bench/output.ts';
import { type BenchRecord, benchSchema, spreadOf } from '../bench/record.ts';
import type { BenchCommRequest } from './bench-comm.ts';
import { describeRun } from './bench-machine.ts';
import { rankMain } from './rank-main.ts';

interface Op {
  readonly op: 'allReduce' | 'allGather';
  readonly bytes: number;
  readonly numCalls: number;
}

interface Place {
  readonly rank: number;
  readonly worldSize: number;
  readonly shmFd: number;
  readonly stepTimeoutMs: number;
  readonly startupTimeoutMs: number;
  readonly numRounds: number;
}

const request = JSON.parse(process.argv[2] ?? '') as BenchCommRequest;
await rankMain(async () => {
  const env = readRankEnv();
  if (env === null) throw new NdsError('ERR_USAGE', 'Expected a rank of a job but received a process without a launcher');
  const { rank, worldSize, shmFd, stepTimeoutMs, startupTimeoutMs } = env;
  const ops = (['allReduce', 'allGather'] as const).flatMap((op) =>
    request.sizes.map((bytes) => ({ op, bytes, numCalls: request.numCalls })),
  );
  const numRounds = request.warmups + request.rounds;
  const rounds = bench({ rank, worldSize, shmFd, stepTimeoutMs, startupTimeoutMs, numRounds }, ops).slice(request.warmups);
  if (rank > 0) return;
  const run = describeRun('cpu', worldSize);
  const records = ops.map((op, i) =>
    recordOf(
      op,
      rounds.map((round) => round[i] ?? Number.NaN),
      worldSize,
      run,
    ),
  );
  writeReport(
    {
      title: `ndsrun bench comm, ${worldSize} ranks`,
      records: [...records.map(({ time }) => time), ...records.map(({ rate }) => rate)],
      extra: {},
    },
    request,
  );
});

/** `[numRounds][numOps]` seconds of a call. */
function bench(place: Place, ops: readonly Op[]): number[][] {
  return (native().testing['commBench'] as unknown as (place: Place, ops: readonly Op[]) => number[][])(place, ops);
}

/** One collective by its time, and by bytes of its result over that time. */
function recordOf({ op, bytes, numCalls }: Op, seconds: readonly number[], numRanks: number, run: BenchRecord['run']) {
  const collective = op === 'allReduce' ? 'all-reduce' : 'all-gather';
  const base = {
    schema: benchSchema,
    command: 'comm',
    series: collective,
    x: { name: 'bytes', value: bytes },
    numWarmups: request.warmups,
    numRounds: request.rounds,
    limits: [],
    numRanks,
    numThreads: 1,
    run,
    model: null,
    details: { bytes, numCalls },
  } as const;
  const name = `${collective} ${bytesInWords(bytes)}`;
  const time: BenchRecord = { ...base, name, unit: 'µs', value: spreadOf(seconds.map((each) => each * 1e6)) };
  const rate: BenchRecord = { ...base, name: `${name}, rate`, unit: 'GB/s', value: spreadOf(seconds.map((each) => bytes / each / 1e9)) };
  return { time, rate };
}
