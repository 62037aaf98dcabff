/** Every CUDA operator against a plain reference, on the emulated device: threads in several orders, and under sanitizers. */
import t from 'tap';
import { isFull } from '../helpers/scale.ts';
import { spawnTied } from '../helpers/tied-process.ts';
import { operatorTests, type Variant } from './emulated.ts';

/** How often each test runs, with other random numbers, in each order of threads. */
const plan: { variant: Variant; rounds: number; seeds: number[] }[] = [
  { variant: 'plain', rounds: isFull ? 10 : 1, seeds: [0, 1, 5] },
  ...(isFull
    ? (
        [
          { variant: 'asan', rounds: 2, seeds: [0] },
          { variant: 'tsan', rounds: 1, seeds: [0] },
        ] as const
      ).map((p) => ({ ...p, seeds: [...p.seeds] }))
    : []),
];

for (const { variant, rounds, seeds } of plan) {
  t.test(`operators, ${variant}`, async (t) => {
    const program = await operatorTests(variant);
    for (const seed of seeds) {
      const { code, output } = await run(program, [String(rounds)], { SIMT_SEED: String(seed), ASAN_OPTIONS: 'detect_leaks=0' });
      const [, passed, failed] = /^(\d+) passed, (\d+) failed$/m.exec(output) ?? [];
      if (code !== 0) t.comment(output.slice(-20_000));
      t.ok(code === 0 && failed === '0' && Number(passed) > 100, `${passed} comparisons with threads in order ${seed}`);
    }
  });
}

function run(program: string, args: string[], env: Record<string, string>): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawnTied(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data) => (output += data));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, output }));
  });
}
