/** A node's place in a job of several: sources by precedence. */
import t from 'tap';
import { describeLayout, nodeLayout } from '../../../launcher/node-layout.ts';
import { parseLaunchOptions } from '../../../launcher/options.ts';
import { firstHost } from '../../../launcher/slurm.ts';
import type { Environment } from '../../../protocol/rank-env.ts';

const parse = (args: string[], env: Environment = {}) => parseLaunchOptions([...args, 'script.ts'], { NDS_TOKEN_FILE: 'token', ...env });
const place = (args: string[], env: Environment = {}) => {
  const { nnodes, nodeRank, masterAddr, masterPort, source, rankSource } = parse(args, env);
  return [nnodes, nodeRank, masterAddr, masterPort, source, rankSource];
};

const cli = 'the command line';
const plain = { NNODES: '3', NODE_RANK: '2', MASTER_ADDR: 'plain', MASTER_PORT: '1003' };
const lws = { LWS_GROUP_SIZE: '4', LWS_WORKER_INDEX: '3', LWS_LEADER_ADDRESS: 'leader.svc' };
const slurm = { SLURM_NNODES: '5', SLURM_NODEID: '4', SLURM_JOB_NODELIST: 'gpu[01-05]' };

t.test('each source, and all of them together', async (t) => {
  const options = ['--nnodes=2', '--node-rank=1', '--master-addr=option', '--master-port=1000'];
  const nds = { NDS_NNODES: '6', NDS_NODE_RANK: '5', NDS_MASTER_ADDR: 'nds', NDS_MASTER_PORT: '1001' };
  const pet = { PET_NNODES: '7', PET_NODE_RANK: '6', PET_MASTER_ADDR: 'pet', PET_MASTER_PORT: '1002' };
  t.same(place(options), [2, 1, 'option', 1000, cli, cli]);
  t.same(place([], nds), [6, 5, 'nds', 1001, 'NDS_* variables', 'NDS_* variables']);
  t.same(place([], pet), [7, 6, 'pet', 1002, 'PET_* variables', 'PET_* variables']);
  t.same(place([], plain), [3, 2, 'plain', 1003, 'NNODES and NODE_RANK', 'NNODES and NODE_RANK']);
  t.same(place([], lws), [4, 3, 'leader.svc', 29500, 'LeaderWorkerSet (LWS_*)', 'LeaderWorkerSet (LWS_*)']);
  t.same(place([], slurm), [5, 4, 'gpu01', 29500, 'Slurm (SLURM_*)', 'Slurm (SLURM_*)']);
  const job = { NNODES: '3', MASTER_ADDR: 'job-0.svc', JOB_COMPLETION_INDEX: '2' };
  t.same(place([], job), [3, 2, 'job-0.svc', 29500, 'NNODES and NODE_RANK', 'Indexed Job (JOB_COMPLETION_INDEX)']);
  const everything = { ...slurm, ...lws, ...job, ...plain, ...pet, ...nds };
  t.equal(place(options, everything)[2], 'option');
  t.equal(place([], everything)[2], 'nds');
  t.equal(place([], { ...slurm, ...lws, ...job, ...plain, ...pet })[2], 'pet');
  t.equal(place([], { ...slurm, ...lws, ...plain })[2], 'plain');
  t.equal(place([], { ...slurm, ...lws })[2], 'leader.svc');
});

t.test('each value is from the strongest source that has it', async (t) => {
  t.same(place(['--nnodes=8'], { ...plain, ...slurm }), [8, 2, 'plain', 1003, cli, 'NNODES and NODE_RANK']);
  t.same(place(['--node-rank=0'], slurm), [5, 0, 'gpu01', 29500, 'Slurm (SLURM_*)', cli]);
  t.same(place([], { ...slurm, PET_MASTER_PORT: '7' }).slice(2, 4), ['gpu01', 7]);
});

t.test('the environment of a cluster says nothing of one node', async (t) => {
  const { NNODES: _, ...stale } = plain;
  t.same(place([], stale), [1, 0, null, null, 'the default', 'the default']);
  t.same(place(['--nnodes=1'], plain), [1, 0, null, null, cli, 'the default']);
  t.same(place(['--standalone'], plain), [1, 0, null, null, '--standalone', 'the default']);
  t.same(place(['--standalone'], { MASTER_PORT: 'tcp://10.0.0.1:80' }), [1, 0, null, null, '--standalone', 'the default']);
  t.same(place([], { NNODES: '', NODE_RANK: '', MASTER_ADDR: '' }), [1, 0, null, null, 'the default', 'the default']);
  t.equal(parse([], { NDS_TOKEN_FILE: undefined }).tokenFile, null, 'nor is a token needed');
});

t.test('c10d without an index', async (t) => {
  const c10d = ['--nnodes=2:2', '--rdzv-backend=c10d', '--rdzv-endpoint=10.0.0.1:29400'];
  t.same(place(c10d), [2, null, '10.0.0.1', 29400, cli, 'the order of arrival']);
  t.same(place([...c10d, '--node-rank=1'])[1], 1);
  t.same(place(c10d, { ...slurm, SLURM_NODEID: '1' }).slice(1), [1, '10.0.0.1', 29400, cli, 'Slurm (SLURM_*)']);
  t.throws(() => parse(['--nnodes=2', '--master-addr=a']), { message: /Expected --node-rank with 2 nodes \(from the command line\)/ });
  t.throws(() => parse(['--nnodes=2', '--rdzv-backend=static', '--master-addr=a']), { message: /Expected --node-rank/ });
});

t.test('Slurm', async (t) => {
  t.same(place([], { ...slurm, SLURM_STEP_NUM_NODES: '2', SLURM_NODEID: '1', SLURM_STEP_NODELIST: 'gpu[04,07]' }).slice(0, 3), [
    2,
    1,
    'gpu04',
  ]);
  const tasks = (env: Environment) => () => parse([], { ...slurm, ...env });
  t.throws(tasks({ SLURM_NTASKS_PER_NODE: '4' }), {
    code: 'ERR_USAGE',
    message: /received SLURM_NTASKS_PER_NODE=4: srun --ntasks-per-node=1/,
  });
  t.throws(tasks({ SLURM_STEP_TASKS_PER_NODE: '1(x3),2' }), { message: /SLURM_STEP_TASKS_PER_NODE=1\(x3\),2/ });
  t.doesNotThrow(tasks({ SLURM_STEP_TASKS_PER_NODE: '1(x5)', SLURM_NTASKS_PER_NODE: '4' }), 'the step counts');
  t.doesNotThrow(() => parse(['--nnodes=1'], { ...slurm, SLURM_NTASKS_PER_NODE: '4' }));
  t.throws(() => parse([], { SLURM_NNODES: '2', SLURM_JOB_NODELIST: 'a,b' }), {
    message: /received none \(srun starts ndsrun on each node\)/,
  });
  const lists: [list: string, first: string][] = [
    ['gpu[01-03,7],login2', 'gpu01'],
    ['login2,gpu[01-03]', 'login2'],
    ['node-7', 'node-7'],
    ['a.b.c,d', 'a.b.c'],
    ['r[2-3]n[08,10]', 'r2n08'],
    ['n[007]', 'n007'],
    ['c[1,3-5]-ib,d', 'c1-ib'],
  ];
  for (const [list, first] of lists) t.equal(firstHost(list, 'X'), first, list);
  for (const list of ['', ',a', 'a[', 'a]', 'a[x]', 'a b', '[]']) t.throws(() => firstHost(list, 'X'), { code: 'ERR_USAGE' }, list);
});

t.test('what is said of it', async (t) => {
  const say = (args: string[], env: Environment = {}) => describeLayout(parse(args, env));
  t.equal(say([]), null);
  t.equal(say(['--nnodes=1'], slurm), 'one node, according to the command line');
  t.equal(say([], slurm), 'node 4 of 5, according to Slurm (SLURM_*); node 0 is at gpu01, port 29500');
  t.equal(
    say(['--nnodes=2', '--rdzv-backend=c10d', '--rdzv-endpoint=a']),
    'a node of 2, according to the order of arrival and the command line; node 0 is at a, port 29500',
  );
});

t.test('a malformed variable, where it counts', async (t) => {
  t.throws(() => parse([], { ...plain, NNODES: '1:3' }), { message: /Expected a fixed number of nodes such as 3 for NNODES/ });
  t.throws(() => parse([], { ...plain, MASTER_PORT: 'tcp://10.0.0.1:80' }), { message: /Expected a number for MASTER_PORT/ });
  t.throws(() => parse([], { ...plain, NODE_RANK: '3' }), { message: /a node rank below --nnodes 3 but received 3 \(from NNODES/ });
  t.same(nodeLayout([], { SLURM_NNODES: '1', SLURM_NODEID: 'x' }).nnodes, 1);
});
