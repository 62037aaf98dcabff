/** The plan of each rank, the machine's resources, and a rank's environment as it is read back. */
import { resolve } from 'node:path';
import t from 'tap';
import { visibleGpus } from '../../../launcher/machine.ts';
import { parseLaunchOptions } from '../../../launcher/options.ts';
import { describeGpus, localWorldSize, planRanks } from '../../../launcher/plan.ts';
import { checkFiles, checkScript } from '../../../launcher/script.ts';
import { claimRank, readRankEnv } from '../../../protocol/rank-env.ts';

const place = { runDir: '/tmp/nds-x', runId: 'job', masterAddr: '127.0.0.1', masterPort: 4711, launcherPid: 42 };
const gang = { epoch: 0, ...place };
const usable = (...devices: string[]) => ({ devices, reason: devices.length > 0 ? null : 'nothing was built' });
const plan = (args: string[], { cores = 8, gpus = [] as string[], env = {} } = {}) =>
  planRanks(
    { ...parseLaunchOptions([...args, 'a.ts', 'x'], {}), nodeRank: 0, isa: null },
    { cores, gpus, usable: usable() },
    { nodeArgs: ['--import', 'p'] },
    gang,
    env,
  );

t.test('how many ranks', async (t) => {
  const count = (value: string, gpus: string[], devices = gpus, args: string[] = []) =>
    localWorldSize(parseLaunchOptions([`--nproc-per-node=${value}`, ...args, 'a.ts'], {}), { cores: 6, gpus, usable: usable(...devices) });
  t.same([count('auto', []), count('auto', ['0', '1']), count('gpu', ['0', '1', '2']), count('cpu', []), count('5', [])], [1, 2, 3, 6, 5]);
  t.same([count('auto', ['0', '1'], []), count('auto', ['0', '1'], ['A100'])], [1, 1], 'only those that this build can use');
  t.equal(count('auto', ['0', '1'], [], ['--no-node']), 2, 'a program may use what we cannot');
  t.throws(() => count('gpu', []), {
    code: 'ERR_USAGE',
    message: /Expected a GPU for --nproc-per-node gpu but received a machine without/,
  });
  t.throws(() => count('gpu', ['0'], []), { code: 'ERR_USAGE', message: /received 1 that cannot be used: nothing was built/ });
});

t.test('what is said of GPUs', async (t) => {
  const say = (args: string[], gpus: string[], ...devices: string[]) =>
    describeGpus(parseLaunchOptions([...args, 'a.ts'], {}), { cores: 6, gpus, usable: usable(...devices) });
  t.same(say([], []), []);
  t.same(say(['--nproc-per-node=3'], ['3', '5'], 'A100 at 1', 'H100 at 2'), [
    'local rank 0 has GPU 3, A100 at 1',
    'local rank 1 has GPU 5, H100 at 2',
    'local rank 2 has GPU 3, A100 at 1',
  ]);
  t.same(say([], ['0', '1']), ['warning: 2 GPUs are not used: nothing was built (see ndsrun doctor)']);
  t.same(say(['--no-node'], ['0', '1']), []);
});

t.test('a rank reads what the launcher writes', async (t) => {
  const [, second] = plan(['--nproc-per-node=2', '--startup-timeout=9', '--failure-timeout=0.25', '--trace=t.json']);
  t.same(readRankEnv(second?.env, 7), {
    rank: 1,
    localRank: 1,
    worldSize: 2,
    localWorldSize: 2,
    groupRank: 0,
    groupWorldSize: 1,
    roleName: 'default',
    restartCount: 0,
    maxRestarts: 0,
    shmFd: 3,
    watchFd: 4,
    controlFd: 5,
    stateFd: 6,
    startupTimeoutMs: 9000,
    stepTimeoutMs: 60_000,
    shutdownTimeoutMs: 25_000,
    failureTimeoutMs: 250,
    traceFile: resolve('t.json'),
    recordFile: '',
    ...place,
  });
});

t.test('who is no rank', async (t) => {
  const env: Record<string, string | undefined> = { ...plan([])[0]?.env };
  t.equal(readRankEnv({}), null, 'without a launcher');
  claimRank(env, 7);
  t.equal(readRankEnv(env, 7)?.rank, 0, 'the rank itself');
  t.equal(readRankEnv(env, 8), null, 'what it started');
});

t.test('a broken rank environment is refused', async (t) => {
  const env = plan(['--nproc-per-node=2'])[1]?.env ?? {};
  const cases: [Record<string, string | undefined>, RegExp][] = [
    [{ RANK: undefined }, /Expected a value for RANK/],
    [{ RANK: 'one' }, /Expected an integer of at least 0 for RANK but received "one"/],
    [{ RANK: '2' }, /Expected RANK below WORLD_SIZE = 2 but received 2/],
    [{ LOCAL_RANK: '2' }, /Expected LOCAL_RANK below/],
    [{ WORLD_SIZE: '0' }, /at least 1 for WORLD_SIZE/],
    [{ NDS_SHM_FD: '-1' }, /NDS_SHM_FD/],
    [{ NDS_STEP_TIMEOUT_MS: '1e3' }, /NDS_STEP_TIMEOUT_MS/],
  ];
  for (const [change, message] of cases) t.throws(() => readRankEnv({ ...env, ...change }), { code: 'ERR_USAGE', message });
});

t.test('commands, threads and GPUs of each rank', async (t) => {
  const [first] = plan(['--nproc-per-node=3']);
  t.same([first?.command, first?.args], [process.execPath, ['--import', 'p', 'a.ts', 'x']]);
  t.same([first?.env['OMP_NUM_THREADS'], plan(['--nproc-per-node=9'])[0]?.env['OMP_NUM_THREADS']], ['2', '1']);
  t.equal(plan([], { env: { OMP_NUM_THREADS: '5' } })[0]?.env['OMP_NUM_THREADS'], undefined);
  const program = plan(['--no-node'])[0];
  t.same([program?.command, program?.args], ['a.ts', ['x']]);
  const gpus = plan(['--virtual-local-rank', '--nproc-per-node=2'], { gpus: ['3', '5'] }).map(({ env }) => env['CUDA_VISIBLE_DEVICES']);
  t.same(gpus, ['3', '5']);
  t.throws(() => plan(['--virtual-local-rank', '--nproc-per-node=2'], { gpus: ['3'] }), { code: 'ERR_USAGE' });
  t.throws(() => plan(['--nproc-per-node=2', '--tee=2:1']), { message: /Expected local ranks below 2 for --tee but received 2/ });
});

t.test('visible GPUs', async (t) => {
  const devices = ['nvidia0', 'nvidia1', 'nvidiactl', 'nvidia-uvm', 'null'];
  t.same(visibleGpus({}, devices), ['0', '1']);
  t.same(visibleGpus({ CUDA_VISIBLE_DEVICES: '3, GPU-ab' }, devices), ['3', 'GPU-ab']);
  t.same(visibleGpus({ CUDA_VISIBLE_DEVICES: '1,-1,0' }, devices), ['1']);
  t.same(visibleGpus({ CUDA_VISIBLE_DEVICES: '' }, devices), []);
});

t.test('scripts, programs and report files that cannot be used', async (t) => {
  const dir = t.testdir({ 'notes.txt': '', 'good.mts': '', folder: {} });
  const script = (path: string) => () => checkScript({ script: path, noNode: false });
  const program = (path: string) => () => checkScript({ script: path, noNode: true });
  t.doesNotThrow(script(`${dir}/good.mts`));
  t.throws(script(`${dir}/none.ts`), { code: 'ERR_NOT_FOUND', message: /none\.ts, which does not exist$/ });
  t.throws(script(`${dir}/folder`), { code: 'ERR_USAGE', message: /Expected a file for the script/ });
  t.throws(script(`${dir}/notes.txt`), { code: 'ERR_USAGE', message: /\.ts, \.mts, \.js, \.mjs/ });
  t.doesNotThrow(program('sh'));
  t.throws(program('no-such-program-here'), { code: 'ERR_NOT_FOUND' });
  t.throws(program(`${dir}/notes.txt`), { code: 'ERR_NOT_FOUND', message: /cannot be run/ });
  for (const option of ['report', 'trace', 'record']) {
    const files = (file: string) => () => checkFiles({ report: null, trace: null, record: null, [option]: file });
    t.doesNotThrow(files(`${dir}/report.json`));
    t.doesNotThrow(files(`${dir}/notes.txt`));
    t.throws(files(`${dir}/none/report.json`), { code: 'ERR_USAGE', message: new RegExp(`for --${option} but received`) });
    t.throws(files(dir), { code: 'ERR_USAGE', message: /it is a folder/ });
  }
});
