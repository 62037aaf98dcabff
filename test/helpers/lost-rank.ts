/** Gangs that lose a rank, and how they must end. */
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { allGone, fixture, Running } from './launcher.ts';

/** A gang that generates with one of the example models forever, unless `mode` says otherwise. */
export function startEndless(numRanks: number, model: string, mode = '', options: readonly string[] = [], env = {}): Running {
  const folder = fileURLToPath(new URL(`../../examples/models/${model}`, import.meta.url));
  const args = [`--nproc-per-node=${numRanks}`, ...options, fixture('lost-rank.ts'), folder, mode];
  return new Running(args, { env: { OMP_NUM_THREADS: '1', ...env } });
}

/** Waits for the end; checks the exit code, and that neither a process nor a file is left. */
export async function expectEnd(t: Test, gang: Running, numRanks: number, code: number, output: RegExp[] = []): Promise<void> {
  const pids = await gang.ranks(numRanks);
  const ended = await gang.ended();
  if (ended.code !== code) t.comment(ended.stdout + ended.stderr);
  t.equal(ended.code, code, 'exit code');
  for (const pattern of output) t.match(ended.stdout, pattern);
  await allGone(pids);
  t.same(gang.leftovers(), []);
}
