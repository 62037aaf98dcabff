/**
 * Guards of speed that a busy machine cannot break: bytes read for a token, page faults and system calls of a step, and
 * shares of the probe beside it with a wide margin.
 */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { checkRecords, type JsonRecord } from '../helpers/bench-output.ts';
import { ndsrun } from '../helpers/launcher.ts';

const model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));

/** By name. */
async function measure(numRanks: number): Promise<ReadonlyMap<string, JsonRecord>> {
  const ranks = [`--nproc-per-node=${numRanks}`, '--num-threads=1', '--quiet', '--json'];
  const sizes = ['--dtype=bfloat16', '--max-tokens=64', '--batch-sizes=1,8', '--prompt-len=256', '--rounds=3'];
  const { code, stdout, stderr } = await ndsrun(['bench', 'throughput', ...ranks, ...sizes, model]);
  if (code !== 0) throw new Error(stderr);
  return new Map(checkRecords(stdout).map((record) => [record.name, record]));
}

function bytesOf(records: ReadonlyMap<string, JsonRecord>, name: string): number {
  return records.get(name)?.limits.find(({ kind }) => kind === 'bandwidth')?.per_token ?? Number.NaN;
}

const [one, two] = [await measure(1), await measure(2)];

t.test('bytes read for a token', async (t) => {
  // Six layers of 256 × 256 q and o, 128 × 256 k and v, three 768 × 256 of the MLP, and the LM head, in bf16.
  const weights = 2 * (6 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 768 * 256) + 2048 * 256);
  // 6 layers × 4 heads × 32 of K and V in bf16, for 32.5 tokens in the mean.
  const kv = 32.5 * 6 * 4 * 32 * 2 * 2;
  for (const [records, name, batchSize] of [
    [one, 'tg64', 1],
    [two, 'tg64', 1],
    [one, 'tg64, batch 8', 8],
  ] as const) {
    const share = bytesOf(records, name) / (weights / batchSize + kv);
    t.ok(share >= 1 && share < 1.02, `${name}: ${share} of the least`);
  }
});

t.test('page faults and system calls of a step', async (t) => {
  for (const records of [one, two]) {
    for (const name of ['tg64', 'tg64, batch 8']) {
      const { minor_faults_per_step: faults, io_calls_per_step: calls } = records.get(name)?.details ?? {};
      t.ok(Number(faults) < 100, `${name}: ${faults} faults`);
      if (calls !== null) t.ok(Number(calls) < 50, `${name}: ${calls} calls`);
    }
  }
});

t.test('shares of what the machine reads and computes', async (t) => {
  for (const [name, kind, least] of [
    ['tg64', 'bandwidth', 0.01],
    ['pp256', 'arithmetic', 0.01],
  ] as const) {
    const share = one.get(name)?.limits.find((limit) => limit.kind === kind)?.share.median ?? 0;
    t.ok(share > least, `${name}: ${share} of ${kind}`);
  }
});
