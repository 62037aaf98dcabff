/** Bad input to the real `ndsrun`: its message, its exit code, and that no process or file is left. */
import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Test, test } from 'tap';
import { badModels, writeBadModel } from '../helpers/bad-models.ts';
import { goodModel } from '../helpers/checkpoint-edits.ts';
import { type Ended, executable, ndsrun } from '../helpers/launcher.ts';
import { part } from '../helpers/scale.ts';

/** Ids of processes whose environment contains `mark`. */
function processesWith(mark: string): string[] {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, 'latin1').includes(mark);
    } catch {
      return false; // it ended, or belongs to another user
    }
  });
}

/** Runs to the end; throws when a process or file is left. */
async function run(args: readonly string[]): Promise<Ended> {
  const mark = randomUUID();
  const ended = await ndsrun(args, { env: { TEST_MARK: mark } });
  const alive = processesWith(mark);
  if (alive.length > 0) throw new Error(`left behind: processes ${alive.join(', ')}`);
  return ended;
}

interface Case {
  readonly args: readonly string[];
  readonly code: number;
  readonly stderr: RegExp;
}

/** Two cases at a time, as each is several processes. A partial run takes every other case. */
async function runAll(t: Test, cases: Record<string, Case>): Promise<void> {
  const queue = part(Object.entries(cases), 2);
  const work = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const [what, { args, code, stderr }] = next;
      const ended = await run(args);
      t.match(ended, { code, stdout: /^$/, stderr }, `${what}: ${ended.stderr}`);
    }
  };
  await Promise.all([work(), work()]);
}

test('ndsrun generate with bad arguments', async (t) => {
  const generate = (...args: string[]) => ['generate', goodModel, 'Once upon', '--quiet', ...args];
  await runAll(t, {
    'no such model': { args: ['generate', '/nowhere/at/all', 'x'], code: 65, stderr: /\/nowhere\/at\/all.*ERR_MODEL_NOT_FOUND/ },
    'no prompt': { args: ['generate', goodModel], code: 64, stderr: /PROMPT.*ERR_USAGE/ },
    'an empty prompt': { args: ['generate', goodModel, ''], code: 64, stderr: /prompt.*empty.*ERR_REQUEST/ },
    'a prompt past the context': { args: generate('--max-model-len=1'), code: 64, stderr: /prompt.*at most 0 tokens.*ERR_REQUEST/ },
    'a prompt past all KV blocks': {
      args: ['generate', goodModel, 'Once upon a time '.repeat(20), '--dtype=float32', '--kv-cache-memory-bytes=16384'],
      code: 64,
      stderr: /KV blocks.*ERR_REQUEST/,
    },
    'more ranks than heads': { args: generate('--nproc-per-node=3'), code: 64, stderr: /2 ranks.*received 3.*ERR_TOO_MANY_RANKS/ },
    'no tokens to generate': { args: generate('--max-tokens=0', '--nproc-per-node=2'), code: 64, stderr: /maxTokens.* 0.*ERR_REQUEST/ },
    'fewer than none': { args: generate('--max-tokens=-3'), code: 64, stderr: /maxTokens.* -3.*ERR_REQUEST/ },
    'a negative temperature': { args: generate('--temperature=-1'), code: 64, stderr: /temperature.* -1.*ERR_REQUEST/ },
    'a probability above one': { args: generate('--top-p=1.5'), code: 64, stderr: /topP.* 1\.5.*ERR_REQUEST/ },
    'a number that is none': { args: generate('--min-p=lots'), code: 64, stderr: /--min-p.*"lots".*ERR_USAGE/ },
    'an unknown option': { args: generate('--max-token=3'), code: 64, stderr: /--max-token\b.*--max-tokens.*ERR_USAGE/s },
  });
});

test('ndsrun generate with a bad model', async (t) => {
  const parent = t.testdir({});
  const names = [
    'truncated data',
    'overlapping tensors',
    '100 000 entries',
    'a misshapen tensor',
    'no hidden_size',
    'architectures: ["GPT2LMHeadModel"]',
  ];
  const chosen = badModels.filter(({ name }) => names.includes(name));
  t.equal(chosen.length, names.length);
  const cases: Record<string, Case> = {};
  for (const [i, bad] of chosen.entries()) {
    const folder = join(parent, `${i}`);
    writeBadModel(bad, folder);
    const stderr = new RegExp(`${bad.names.source}.*${bad.code}`);
    cases[bad.name] = { args: ['generate', folder, 'x', '--nproc-per-node=2'], code: 65, stderr };
  }
  await runAll(t, cases);
});

test('bytes that are no UTF-8', { skip: process.platform !== 'linux' && 'reads /proc' }, (t) => {
  const folder = t.testdir({});
  const commands = {
    argument: `"$0" "$1" generate "$2" "$(printf 'a\\377b')"`,
    'standard input': `printf 'a\\377b' | "$0" "$1" generate "$2" -`,
  };
  for (const [where, command] of Object.entries(commands)) {
    const env = { PATH: process.env['PATH'], TMPDIR: folder };
    const { status, stderr } = spawnSync('sh', ['-c', command, process.execPath, executable, goodModel], { encoding: 'utf8', env });
    t.match({ status, stderr }, { status: 64, stderr: /ERR_REQUEST/ }, where);
    t.match(stderr, /UTF-8/, where);
  }
  t.same(
    readdirSync(folder).filter((name) => name.startsWith('nds-')),
    [],
    'no file stays behind',
  );
  t.end();
});

test('scripts that throw or are not there', async (t) => {
  const folder = t.testdir({});
  const script = (name: string, body: string) => {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, name), body);
    return join(folder, name);
  };
  const load = `import { LLM } from 'nano-dist-spec';\nconst llm = await LLM.load(${JSON.stringify(goodModel)});\n`;
  const ranks = '--nproc-per-node=2';
  await runAll(t, {
    'no such script': { args: [ranks, join(folder, 'absent.ts')], code: 64, stderr: /absent\.ts.*ERR_NOT_FOUND/ },
    'a script that is no TypeScript': { args: [ranks, script('syntax.ts', 'const = 1;')], code: 1, stderr: /syntax\.ts/ },
    'all ranks throw': { args: [ranks, script('all.ts', "throw new Error('boom on all');")], code: 1, stderr: /boom on all/ },
    'rank 1 throws while rank 0 loads': {
      args: [ranks, script('one.ts', `if (process.env.RANK === '1') throw new Error('boom on one');\n${load}`)],
      code: 1,
      stderr: /rank 1 failed first.*boom on one/s,
    },
    'rank 0 throws after the load': {
      args: [ranks, script('after.ts', `${load}throw new Error('boom later');`)],
      code: 1,
      stderr: /rank 0 failed first.*boom later/s,
    },
    'rank 0 throws with a request under way': {
      args: [
        ranks,
        script(
          'midway.ts',
          `${load}for await (const _ of llm.stream('Once', { maxTokens: 500, ignoreEos: true })) throw new Error('boom midway');`,
        ),
      ],
      code: 1,
      stderr: /rank 0 failed first.*boom midway/s,
    },
    'a bad request that nobody catches': {
      args: [ranks, script('request.ts', `${load}await llm.generate({ promptTokenIds: [2048] });`)],
      code: 64,
      stderr: /promptTokenIds\[0\].*2048.*ERR_REQUEST/s,
    },
  });
});
