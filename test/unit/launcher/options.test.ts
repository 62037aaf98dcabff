/** Command lines and environments → options: precedence and refusals. */
import t from 'tap';
import { parseLaunchOptions } from '../../../launcher/options.ts';
import type { Environment } from '../../../protocol/rank-env.ts';

const parse = (args: string[], env: Environment = {}) => parseLaunchOptions([...args, 'script.ts'], env);

t.test('defaults', async (t) => {
  t.match(parse([]), {
    nprocPerNode: 'auto',
    nnodes: 1,
    nodeRank: 0,
    masterAddr: null,
    masterPort: null,
    tokenFile: null,
    maxRestarts: 0,
    restartBackoffMs: 1000,
    startupTimeoutMs: 600_000,
    rdzvTimeoutMs: 300_000,
    nodeTimeoutMs: 10_000,
    stepTimeoutMs: 60_000,
    shutdownTimeoutMs: 25_000,
    failureTimeoutMs: 3000,
    trace: null,
    record: null,
    source: 'the default',
    script: 'script.ts',
    scriptArgs: [],
    warnings: [],
  });
});

t.test('both spellings, both ways to give a value', async (t) => {
  for (const args of [['--nproc-per-node', '3'], ['--nproc_per_node', '3'], ['--nproc-per-node=3'], ['--nproc_per_node=3']]) {
    t.equal(parse(args).nprocPerNode, 3, args.join(' '));
  }
  t.equal(parse(['--nproc-per-node=2', '--nproc_per_node=2']).nprocPerNode, 2, 'twice the same');
});

t.test('everything after the script is its own', async (t) => {
  const { script, scriptArgs, dryRun } = parseLaunchOptions(
    ['--nproc-per-node', '2', 'a.ts', '--dry-run', '--', '-x', '--nproc_per_node=9'],
    {},
  );
  t.same([script, scriptArgs, dryRun], ['a.ts', ['--dry-run', '--', '-x', '--nproc_per_node=9'], false]);
});

t.test('-- ends the options', async (t) => {
  const { script, scriptArgs, dryRun } = parseLaunchOptions(['--dry-run', '--', '--odd.ts', '--flag'], {});
  t.same([script, scriptArgs, dryRun], ['--odd.ts', ['--flag'], true]);
});

t.test('command line, then NDS_*, then PET_*', async (t) => {
  const env = { NDS_NPROC_PER_NODE: '3', PET_NPROC_PER_NODE: '4', PET_STEP_TIMEOUT: '1.5', NDS_DRY_RUN: '1', NDS_REPORT: '' };
  t.match(parse(['--nproc-per-node=2'], env), { nprocPerNode: 2, stepTimeoutMs: 1500, dryRun: true, report: null });
  t.equal(parse([], env).nprocPerNode, 3);
  t.equal(parse([], { ...env, NDS_NPROC_PER_NODE: undefined }).nprocPerNode, 4);
});

t.test('files to write', async (t) => {
  t.match(parse(['--trace', 'a.json', '--record=b.plans']), { trace: 'a.json', record: 'b.plans' });
  t.match(parse(['--trace=a.json'], { NDS_TRACE: 'c', NDS_RECORD: 'd', PET_RECORD: 'e' }), { trace: 'a.json', record: 'd' });
});

t.test('one node, whatever the cluster says', async (t) => {
  const slurm = { SLURM_NNODES: '2', SLURM_NODEID: '1' };
  t.match(parse(['--standalone'], slurm), { nnodes: 1, nodeRank: 0, source: '--standalone' });
  t.match(parse(['--nnodes=1'], slurm), { nnodes: 1, nodeRank: 0, source: 'the command line' });
  t.match(parse([], { ...slurm, SLURM_STEP_NUM_NODES: '1', SLURM_NODEID: '0' }), { nnodes: 1, source: 'Slurm (SLURM_*)' });
  t.match(parse([], { ...slurm, LWS_GROUP_SIZE: '1', LWS_WORKER_INDEX: '0' }), { nnodes: 1, source: 'LeaderWorkerSet (LWS_*)' });
  t.match(parse([], { JOB_COMPLETION_INDEX: '3' }), { nnodes: 1, nodeRank: 0 }, 'an index without a count is of independent jobs');
  t.match(parse([], { PET_NNODES: '1:1', ...slurm }), { nnodes: 1, source: 'PET_* variables' });
});

t.test('where node 0 listens', async (t) => {
  t.match(parse(['--rdzv-endpoint=host:29500']), { masterAddr: 'host', masterPort: 29500 });
  t.match(parse(['--rdzv-endpoint=[::1]:29500']), { masterAddr: '::1', masterPort: 29500 });
  t.match(parse(['--rdzv-endpoint=host']), { masterAddr: 'host', masterPort: null });
  t.match(parse(['--master-addr=a'], { PET_MASTER_ADDR: 'b', PET_MASTER_PORT: '7' }), { masterAddr: 'a', masterPort: 7 });
  t.match(parse(['--standalone'], { PET_MASTER_ADDR: 'b' }), { masterAddr: null });
});

t.test('an incoming rank is a warning', async (t) => {
  t.same(parse([], { RANK: '3' }).warnings, ['ignored RANK=3 from the environment: ndsrun sets these for its ranks']);
});

t.test('streams by rank', async (t) => {
  t.same(parse(['-r', '3']).redirects, { stdout: true, stderr: true });
  t.same(
    parse(['--tee', '0:1,2:2']).tee,
    new Map([
      [0, { stdout: true, stderr: false }],
      [2, { stdout: false, stderr: true }],
    ]),
  );
  t.same(parse(['--local-ranks-filter', '0,2']).localRanksFilter, [0, 2]);
});

t.test('what is refused', async (t) => {
  const cases: [args: string[], env: Environment, message: RegExp][] = [
    [['--nproc-per-nodes=2'], {}, /received --nproc-per-nodes \(did you mean --nproc-per-node\?\)/],
    [['--stp-timeout=2'], {}, /did you mean --step-timeout\?/],
    [['--step_timout', '2'], {}, /did you mean --step-timeout\?/],
    [['--nproc-per-node=2', '--nproc_per_node=3'], {}, /Expected one value for --nproc-per-node but received "2" and "3"/],
    [['--master-addr=a', '--rdzv-endpoint=b:1'], {}, /rdzv-endpoint and master-addr \(the command line\) to agree but received b and a/],
    [[], { PET_MASTER_PORT: '1', PET_RDZV_ENDPOINT: 'b:2' }, /rdzv-endpoint and master-port \(PET_\* variables\)/],
    [['--standalone', '--nnodes=2'], {}, /Expected one node with --standalone/],
    [['--nnodes=2'], {}, /Expected --node-rank with 2 nodes/],
    [['--nnodes=2', '--node-rank=2'], {}, /Expected a node rank below --nnodes 2 but received 2/],
    [['--node-rank=1'], {}, /Expected a node rank below --nnodes 1 but received 1/],
    [['--nnodes=2', '--node-rank=1'], {}, /Expected --master-addr, the address of node 0, with 2 nodes/],
    [['--nnodes=2', '--node-rank=1', '--master-addr=a'], {}, /Expected --token-file or NDS_TOKEN_FILE with 2 nodes .*umask 077/],
    [['--nnodes=1:4'], {}, /Expected a fixed number of nodes such as 4 for --nnodes but received "1:4"/],
    [['--rdzv-timeout=0'], {}, /seconds above 0 for --rdzv-timeout/],
    [['--node-timeout=-1'], {}, /seconds above 0 for --node-timeout/],
    [[], { NDS_NPROC_PER_NODE: 'two' }, /for NDS_NPROC_PER_NODE but received "two"/],
    [['--nproc-per-node=-1'], {}, /for --nproc-per-node but received "-1"/],
    [['--step-timeout=0'], {}, /Expected seconds above 0 for --step-timeout but received "0"/],
    [['--step-timeout=soon'], {}, /received "soon"/],
    [['--master-port=65536'], {}, /an integer from 0 to 65535 for --master-port/],
    [['--redirects=4'], {}, /for --redirects but received "4"/],
    [['--tee=0:1,0:2'], {}, /for --tee/],
    [['--local-ranks-filter=a'], {}, /for --local-ranks-filter/],
    [[], { NDS_DRY_RUN: 'maybe' }, /Expected true, 1, false or 0 for NDS_DRY_RUN/],
    [[], { SLURM_NNODES: 'many' }, /Expected a number for SLURM_NNODES/],
  ];
  for (const [args, env, message] of cases) t.throws(() => parse(args, env), { code: 'ERR_USAGE', message }, JSON.stringify([args, env]));
  t.throws(() => parse(['--trace=']), { code: 'ERR_USAGE', message: /Expected a non-empty text for --trace/ });
  t.throws(() => parseLaunchOptions(['--report'], {}), { code: 'ERR_USAGE', message: /Expected a value for --report but received none/ });
  t.throws(() => parseLaunchOptions([], {}), { code: 'ERR_USAGE', message: /Expected a script/ });
});

t.test("torchrun's options", async (t) => {
  t.match(parse(['--nnodes', '1:1', '--master-port', '0']), { nnodes: 1, masterPort: null }, 'a free port');
  t.match(parse(['--rdzv-endpoint=localhost:0', '--rdzv-backend=c10d', '--rdzv_id=7']), { masterAddr: 'localhost', masterPort: null });
  t.match(parse(['--rdzv_backend', 'static', '--role', 'decode']), { roleName: 'decode' });
  t.equal(parse(['--no-python']).noNode, true);
  t.equal(parse(['--no_python']).noNode, true);
  t.equal(parse([], { PET_NO_PYTHON: '1' }).noNode, true);
  t.equal(parse(['--log-line-prefix-template', '']).logLinePrefixTemplate, '');
  t.equal(parse(['--log-line-prefix-template=']).logLinePrefixTemplate, '');
  t.same(parse(['--start-method=spawn', '--monitor_interval', '5'], { PET_NUMA_BINDING: 'node' }).warnings, [
    "without effect: --start-method (a rank is a process of its own), --monitor-interval (a rank's end is an event, which nobody polls" +
      ' for), --numa-binding (no rank is bound to a NUMA node)',
  ]);
  const refused: [args: string[], message: RegExp, env?: Environment][] = [
    [['--rdzv-backend=etcd'], /Expected static or c10d for --rdzv-backend but received "etcd"/],
    [[], /for PET_RDZV_BACKEND but received "etcd-v2"/, { PET_RDZV_BACKEND: 'etcd-v2' }],
    [[], /Expected NDS_NO_NODE and NDS_NO_PYTHON to agree/, { NDS_NO_NODE: '1', NDS_NO_PYTHON: '0' }],
    [['-m'], /Expected the path of a script, .* but received --module, which is torchrun's/],
    [['--run-path'], /received --run-path/],
    [['--rdzv-conf', 'timeout=3'], /Expected --rdzv-timeout, .* but received --rdzv-conf/],
    [['--duplicate_stdout_filters', 'a'], /Expected --tee 1 with --log-dir/],
    [['--nnodes=2', '--node-rank=0', '--master-addr=a', '--master-port=0'], /Expected a port that all nodes know/],
  ];
  for (const [args, message, env] of refused) t.throws(() => parse(args, env), { code: 'ERR_USAGE', message }, args.join(' '));
});

t.test('options of other tools are answered by name', async (t) => {
  const cases: [args: string[], message: RegExp][] = [
    [['--tensor-parallel-size=2'], /received --tensor-parallel-size: it is --nproc-per-node$/],
    [['--tensor_parallel_size', '2'], /it is --nproc-per-node$/],
    [['-tp', '2'], /received -tp: it is --nproc-per-node$/],
    [['-tp=2'], /received -tp: it is --nproc-per-node$/],
    [['--model', 'x'], /received --model: a model is an operand, as in ndsrun generate MODEL PROMPT/],
    [['--max-new-tokens', '5'], /it is the sampling parameter maxTokens, and --max-tokens of ndsrun generate$/],
    [['--no-color'], /colour follows the terminal/],
    [['--paged-attention'], /Expected a known option but received --paged-attention$/],
  ];
  for (const [args, message] of cases) t.throws(() => parse(args), { code: 'ERR_USAGE', message }, args.join(' '));
});
