/** `ndsrun bench kv-utilization` on the command line. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { ndsrun } from '../helpers/launcher.ts';
import { part } from '../helpers/scale.ts';

const model = fileURLToPath(new URL('../../examples/models/story-180k', import.meta.url));
const command = ['bench', 'kv-utilization'];
const small = ['--num-requests', '20', '--min-len', '5', '--max-len', '60', '--max-num-seqs', '8'];

t.test('a table, or JSON', async (t) => {
  const table = await ndsrun([...command, ...small, '--quiet', '--kv-cache-tokens', '640']);
  t.match(table, { code: 0, stderr: '' });
  t.match(table.stdout, /20 requests, prompts and outputs of 5 to 60 tokens \(seed 0\)/);
  t.match(table.stdout, /^paged, blocks of 32 .*\d+\.\d %/m);
  const { code, stdout } = await ndsrun([...command, ...small, '--kv-cache-tokens=700', '--block-size=16', '--seed=3', '--json']);
  t.equal(code, 0);
  t.match(JSON.parse(stdout), {
    workload: { num_requests: 20, min_len: 5, max_len: 60, seed: 3 },
    limits: { num_kv_tokens: 688, block_size: 16, max_model_len: 120, max_num_seqs: 8, max_num_batched_tokens: 1024 },
    allocators: [{ name: 'paged, blocks of 16', mean_num_seqs: Number, held_of_reserved: Number, num_steps: Number }, {}, {}],
  });
});

t.test('a model says how large a token is', async (t) => {
  const sized = (dtype: string) =>
    ndsrun([...command, model, ...small, '--kv-cache-memory-bytes=2000000', `--kv-cache-dtype=${dtype}`, '--json']);
  const tokens = async (dtype: string) => JSON.parse((await sized(dtype)).stdout).limits.num_kv_tokens as number;
  const [wide, half] = [await tokens('float32'), await tokens('bfloat16')];
  t.ok(wide > 0);
  t.ok(Math.abs(half - 2 * wide) <= 32);
});

t.test('what does not go together is refused', async (t) => {
  const refused: [string[], RegExp][] = [
    [['--kv-cache-memory-bytes', '100000'], /Expected MODEL with --kv-cache-memory-bytes/],
    [['--kv-cache-dtype', 'int8'], /Expected MODEL with --kv-cache-dtype/],
    [['--kv-cache-dtype', 'fp8'], /Expected float32, bfloat16, int8 for --kv-cache-dtype/],
    [[model, '--kv-cache-dtype', 'int8'], /Expected --kv-cache-memory-bytes with --kv-cache-dtype/],
    [[model, '--kv-cache-memory-bytes', '9', '--kv-cache-tokens', '9'], /received both/],
    [['--min-len', '7', '--max-len', '6'], /at least --min-len = 7 for --max-len but received 6/],
    [['--max-model-len', '2047', '--max-len', '1024'], /at least 2048, .* for --max-model-len but received 2047/],
    [['--kv-cache-tokens', '2040'], /room for one sequence of 2048 tokens for --kv-cache-tokens/],
    [['--max-num-seqs', '9', '--max-num-batched-tokens', '8'], /at least --max-num-seqs = 9/],
    [[model, model], /at most MODEL but received 2/],
  ];
  for (const [args, message] of part(refused, 2)) {
    const { code, stdout, stderr } = await ndsrun([...command, ...args]);
    t.equal(code, 64, args.join(' '));
    t.equal(stdout, '');
    t.match(stderr, message);
  }
});

t.test('help is of the command that is named', async (t) => {
  t.match((await ndsrun(['bench', '--help'])).stdout, /Usage: ndsrun bench \[options\] MODEL/);
  t.match((await ndsrun([...command, '--help'])).stdout, /Usage: ndsrun bench kv-utilization/);
});
