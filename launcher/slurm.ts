/** A Slurm step's place in a job, from the variables that srun gives each task. */
import { NdsError } from '../protocol/errors.ts';
import type { Environment } from '../protocol/rank-env.ts';

/**
 * First host of a compressed node list: `gpu[01-03,7],login2` → `gpu01`, which srun gives the node id 0.
 *
 * @throws NdsError `ERR_USAGE` for a list that cannot be read.
 */
export function firstHost(nodeList: string, variable: string): string {
  const [, first] = /^((?:[^\s,[\]]|\[[\d,-]+\])+)(?:,|$)/.exec(nodeList) ?? [];
  const host = first?.replace(/\[(\d+)[\d,-]*\]/g, '$1');
  if (host === undefined)
    throw new NdsError('ERR_USAGE', `Expected a node list such as gpu[01-04] for ${variable} but received "${nodeList}"`);
  return host;
}

/** The host of Slurm's node 0: of the step where there is one, else of the job. */
export function slurmMasterAddr(env: Environment): string | undefined {
  for (const variable of ['SLURM_STEP_NODELIST', 'SLURM_JOB_NODELIST']) {
    const list = env[variable];
    if (list) return firstHost(list, variable);
  }
  return undefined;
}

/**
 * Checks that srun starts one ndsrun on each node.
 *
 * @throws NdsError `ERR_USAGE` for more tasks a node.
 */
export function checkTasksPerNode(env: Environment): void {
  // Of a step, as 1(x4) or 2,1; the allocation's number may be another.
  const variable = env['SLURM_STEP_TASKS_PER_NODE'] ? 'SLURM_STEP_TASKS_PER_NODE' : 'SLURM_NTASKS_PER_NODE';
  const counts = (env[variable] ?? '').replace(/\(x\d+\)/g, '').split(',');
  if (counts.every((count) => Number(count) <= 1)) return;
  throw new NdsError(
    'ERR_USAGE',
    `Expected one task on each node, which starts the ranks there, but received ${variable}=${env[variable]}: ` +
      'srun --ntasks-per-node=1 ndsrun --nproc-per-node N',
  );
}
