/**
 * Published job files with `torchrun` replaced by `ndsrun` and `.py` by `.ts`: what each node plans, from its command
 * line and the variables that its cluster sets.
 */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Running } from '../helpers/launcher.ts';
import { tokenFile } from '../helpers/link.ts';

interface Plan {
  readonly nnodes: number;
  readonly node_rank: number;
  readonly master_addr: string;
  readonly master_port: number;
  readonly ranks: readonly { readonly rank: number; readonly env: Readonly<Record<string, string>> }[];
}

/** Runs a job file's lines as a shell does, on each node with its variables, but for `--dry-run`. */
async function plansOf(t: Test, lines: string, nodes: readonly Record<string, string>[]): Promise<Plan[]> {
  const folder = t.testdir({ 'job.ts': '' });
  const words = lines.replaceAll('\\\n', ' ').trim().split(/\s+/);
  const token = { NDS_TOKEN_FILE: tokenFile(t, 'token', 'a secret of all nodes') };
  const plan = async (env: Record<string, string>): Promise<Plan> => {
    const [command, ...args] = words.map((word) =>
      word.replace(/\$(?:\{(\w+)\}|\((\w+)\)|(\w+))/g, (_, ...names) => env[names.find(Boolean)] ?? ''),
    );
    t.equal(command, 'ndsrun');
    const { code, stdout, stderr } = await new Running(['--dry-run', ...args], { env: { ...token, ...env }, cwd: folder }).ended();
    t.equal(code, 0, stderr);
    return JSON.parse(stdout) as Plan;
  };
  return Promise.all(nodes.map(plan));
}

function checkPlans(t: Test, plans: readonly Plan[], localWorldSize: number, master: [addr: string, port: number]): void {
  for (const [nodeRank, plan] of plans.entries()) {
    t.same([plan.nnodes, plan.node_rank, plan.master_addr, plan.master_port], [plans.length, nodeRank, ...master]);
    for (const [localRank, { rank, env }] of plan.ranks.entries()) {
      t.equal(rank, nodeRank * localWorldSize + localRank);
      t.match(env, {
        RANK: String(rank),
        LOCAL_RANK: String(localRank),
        WORLD_SIZE: String(plans.length * localWorldSize),
        GROUP_RANK: String(nodeRank),
        GROUP_WORLD_SIZE: String(plans.length),
        MASTER_ADDR: master[0],
        MASTER_PORT: String(master[1]),
      });
    }
    t.equal(plan.ranks.length, localWorldSize);
  }
}

/** What srun gives each task of four nodes with one task each. */
const slurmNodes = [0, 1, 2, 3].map((node) => ({
  SLURM_JOB_ID: '77',
  SLURM_NNODES: '4',
  SLURM_STEP_NUM_NODES: '4',
  SLURM_JOB_NODELIST: 'gpu[01-03],login1',
  SLURM_STEP_NODELIST: 'gpu[01-03],login1',
  SLURM_STEP_TASKS_PER_NODE: '1(x4)',
  SLURM_NTASKS: '4',
  SLURM_NODEID: String(node),
  SLURM_PROCID: String(node),
  SLURM_LOCALID: '0',
}));

t.test('pytorch/examples, ddp-tutorial-series/slurm/sbatch_run.sh', async (t) => {
  // Set by the batch script, before srun starts the tasks.
  const batch = { head_node_ip: '10.0.0.11', job_id: '2024' };
  const lines = `ndsrun \\
    --nnodes 4 \\
    --nproc_per_node 1 \\
    --rdzv_id $job_id \\
    --rdzv_backend c10d \\
    --rdzv_endpoint $head_node_ip:29500 \\
    job.ts 50 10`;
  const plans = await plansOf(
    t,
    lines,
    slurmNodes.map((node) => ({ ...node, ...batch })),
  );
  checkPlans(t, plans, 1, ['10.0.0.11', 29500]);
  t.equal(plans[3]?.ranks[0]?.env['TORCHELASTIC_RUN_ID'], '2024');
});

t.test('a Slurm script that passes index and address', async (t) => {
  const batch = { MASTER_ADDR: 'gpu01', MASTER_PORT: '6000', GPUS_PER_NODE: '2' };
  const lines = `ndsrun --nproc_per_node $GPUS_PER_NODE --nnodes $SLURM_NNODES --node_rank $SLURM_PROCID \\
    --master_addr $MASTER_ADDR --master_port $MASTER_PORT --max_restarts 0 --tee 3 --log_dir logs job.ts`;
  checkPlans(
    t,
    await plansOf(
      t,
      lines,
      slurmNodes.map((node) => ({ ...node, ...batch })),
    ),
    2,
    ['gpu01', 6000],
  );
});

t.test('srun alone', async (t) => {
  checkPlans(t, await plansOf(t, 'ndsrun --nproc-per-node=2 job.ts', slurmNodes), 2, ['gpu01', 29500]);
});

t.test('LeaderWorkerSet, by options and by its variables alone', async (t) => {
  const leader = 'job-0.job.default';
  const nodes = [0, 1].map((node) => ({ LWS_GROUP_SIZE: '2', LWS_WORKER_INDEX: String(node), LWS_LEADER_ADDRESS: leader }));
  const lines = `ndsrun --nnodes=$(LWS_GROUP_SIZE) --node-rank=$(LWS_WORKER_INDEX) --nproc-per-node=2 \\
    --master-addr=$(LWS_LEADER_ADDRESS) --master-port=29501 job.ts`;
  checkPlans(t, await plansOf(t, lines, nodes), 2, [leader, 29501]);
  checkPlans(t, await plansOf(t, 'ndsrun --nproc-per-node=2 job.ts', nodes), 2, [leader, 29500]);
});

t.test("variables alone: torchrun's, plain ones, and those of an Indexed Job", async (t) => {
  const nodes = (make: (node: number) => Record<string, string>) => [0, 1, 2].map(make);
  // Kubeflow's trainer sets these.
  const pet = nodes((node) => ({
    PET_NNODES: '3',
    PET_NPROC_PER_NODE: '2',
    PET_NODE_RANK: String(node),
    PET_MASTER_ADDR: 'job-node-0-0.job',
    PET_MASTER_PORT: '29400',
  }));
  checkPlans(t, await plansOf(t, 'ndsrun job.ts', pet), 2, ['job-node-0-0.job', 29400]);
  const plain = nodes((node) => ({ NNODES: '3', NODE_RANK: String(node), MASTER_ADDR: '10.0.0.1', MASTER_PORT: '1234' }));
  checkPlans(t, await plansOf(t, 'ndsrun --nproc-per-node=1 job.ts', plain), 1, ['10.0.0.1', 1234]);
  const indexed = nodes((node) => ({ NNODES: '3', MASTER_ADDR: 'job-0.svc', JOB_COMPLETION_INDEX: String(node) }));
  checkPlans(t, await plansOf(t, 'ndsrun --nproc-per-node=1 job.ts', indexed), 1, ['job-0.svc', 29500]);
});

t.test('without a token, how to make one is said', async (t) => {
  const folder = t.testdir({ 'job.ts': '' });
  const { code, stderr } = await new Running([join(folder, 'job.ts')], { env: slurmNodes[1] ?? {} }).ended();
  t.equal(code, 64);
  t.match(stderr, /Expected --token-file or NDS_TOKEN_FILE with 4 nodes \(from Slurm \(SLURM_\*\)\)/);
});
