/** The files of examples/deploy: they parse, and what they tell ndsrun exists. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parseAllDocuments } from 'yaml';
import { type LaunchOptions, parseLaunchOptions } from '../../../launcher/options.ts';
import type { Environment } from '../../../protocol/rank-env.ts';
import { root } from '../../../scripts/files.mjs';
import { executable } from '../../helpers/launcher.ts';

const folder = join(root, 'examples', 'deploy');
const read = (name: string): string => readFileSync(join(folder, name), 'utf8');

/** What the tests read of a manifest. */
interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: Record<string, unknown>;
}

interface PodSpec {
  readonly terminationGracePeriodSeconds: number;
  readonly subdomain?: string;
  readonly containers: readonly [
    {
      readonly args: string[];
      readonly env?: { name: string; value: string }[];
      readonly volumeMounts: { name: string; mountPath: string }[];
    },
  ];
  readonly volumes: readonly { readonly name: string; readonly secret?: { readonly defaultMode: number } }[];
}

/** Kubernetes reads YAML 1.1, where 0400 is octal. */
function manifests(name: string): Manifest[] {
  return parseAllDocuments(read(name), { version: '1.1' }).map((document) => {
    if (document.errors.length > 0) throw document.errors[0];
    return document.toJS() as Manifest;
  });
}

/** Checks what a pod's ndsrun is given, with the variables that its controller sets. */
function launchOf(t: Test, pod: PodSpec, env: Environment): LaunchOptions {
  const [{ args, env: own = [], volumeMounts }] = pod.containers;
  const options = parseLaunchOptions(args, { ...env, ...Object.fromEntries(own.map(({ name, value }) => [name, value])) });
  const token = volumeMounts.find(({ mountPath }) => options.tokenFile?.startsWith(`${mountPath}/`));
  t.equal(pod.volumes.find(({ name }) => name === token?.name)?.secret?.defaultMode, 0o400, 'the token is its owner’s');
  t.ok(volumeMounts.some(({ mountPath }) => mountPath === '/dev/shm'));
  t.ok(pod.terminationGracePeriodSeconds * 1000 > options.shutdownTimeoutMs);
  return options;
}

t.test('nothing is without a test here', async (t) => {
  t.same(readdirSync(folder).sort(), ['Dockerfile', 'indexed-job.yaml', 'leaderworkerset.yaml', 'slurm.sh', 'story.service']);
});

t.test('LeaderWorkerSet', async (t) => {
  const [set, ...more] = manifests('leaderworkerset.yaml');
  if (set === undefined || more.length > 0) return void t.fail('one manifest');
  const { size, workerTemplate } = set.spec['leaderWorkerTemplate'] as { size: number; workerTemplate: { spec: PodSpec } };
  const env = { LWS_GROUP_SIZE: String(size), LWS_WORKER_INDEX: '1', LWS_LEADER_ADDRESS: 'story-0.story.default' };
  t.match(launchOf(t, workerTemplate.spec, env), { nnodes: 2, nodeRank: 1, masterAddr: 'story-0.story.default', nprocPerNode: 8 });
});

t.test('Indexed Job', async (t) => {
  const [service, job, ...more] = manifests('indexed-job.yaml');
  if (service === undefined || job === undefined || more.length > 0) return void t.fail('two manifests');
  t.same([service.kind, job.kind], ['Service', 'Job']);
  const { name } = job.metadata;
  t.match(service, { metadata: { name }, spec: { clusterIP: 'None', selector: { 'batch.kubernetes.io/job-name': name } } });
  const { completionMode, completions, parallelism, template } = job.spec as { template: { spec: PodSpec } } & Record<string, unknown>;
  const options = launchOf(t, template.spec, { JOB_COMPLETION_INDEX: '1' });
  t.match(options, { nnodes: completions, nodeRank: 1, masterAddr: `${name}-0.${template.spec.subdomain}` });
  t.same([completionMode, parallelism, template.spec.subdomain], ['Indexed', completions, service.metadata.name]);
});

t.test('Slurm', async (t) => {
  const dir = t.testdir({ 'script.ts': '', bin: {} });
  mkdirSync(join(dir, 'node_modules', '.bin'), { recursive: true });
  symlinkSync(executable, join(dir, 'node_modules', '.bin', 'ndsrun'));
  // As of a step of two nodes, whose tasks it starts one after the other.
  const srun = `#!/bin/sh
export SLURM_STEP_NUM_NODES=2 SLURM_STEP_NODELIST='gpu[07-08]' SLURM_STEP_TASKS_PER_NODE='1(x2)' NDS_DRY_RUN=1
for node in 0 1; do SLURM_NODEID=$node "$@" > node$node.json || exit; done
ls -l .token-* | cut -c 1-10 > mode
`;
  writeFileSync(join(dir, 'bin', 'srun'), srun, { mode: 0o755 });
  const { NODE_OPTIONS: _, ...inherited } = process.env;
  const env = { ...inherited, PATH: `${join(dir, 'bin')}:${inherited['PATH']}`, SLURM_JOB_ID: '1234567', SLURM_NNODES: '2' };
  const { status, stderr } = spawnSync(join(folder, 'slurm.sh'), { cwd: dir, env, encoding: 'utf8' });
  t.same({ status, stderr }, { status: 0, stderr: '' });
  for (const node of [0, 1]) {
    const plan = JSON.parse(readFileSync(join(dir, `node${node}.json`), 'utf8')) as { ranks: { env: Record<string, string> }[] };
    t.match(plan, { nnodes: 2, node_rank: node, ranks: [{ rank: node }] });
    t.match(plan.ranks[0]?.env, { MASTER_ADDR: 'gpu07', MASTER_PORT: '24567', WORLD_SIZE: '2' });
  }
  t.equal(readFileSync(join(dir, 'mode'), 'utf8'), '-rw-------\n');
  t.notOk(
    readdirSync(dir).some((name) => name.startsWith('.token')),
    'the token is gone with the job',
  );
});

t.test('Dockerfile', async (t) => {
  const lines = read('Dockerfile').split('\n');
  const listOf = (word: string): string[] => JSON.parse(lines.find((line) => line.startsWith(`${word} `))?.slice(word.length + 1) ?? '[]');
  t.same(listOf('ENTRYPOINT'), ['node_modules/.bin/ndsrun']);
  t.ok(lines.indexOf('USER node') < lines.indexOf('RUN node_modules/.bin/ndsrun build'), 'the core is in the cache of who runs it');
  t.match(parseLaunchOptions(listOf('CMD'), {}), { nprocPerNode: 'auto', script: 'script.ts' });
});

const verifies = spawnSync('systemd-analyze', ['--version']).status === 0;

t.test('systemd', async (t) => {
  const unit = read('story.service');
  const [, command = ''] = /^ExecStart=\S+\/ndsrun (.*)$/m.exec(unit) ?? [];
  const [, more = ''] = /^# +(--nnodes.*)$/m.exec(unit) ?? [];
  const stopSeconds = Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1]);
  t.ok(stopSeconds * 1000 > parseLaunchOptions(command.split(' '), {}).shutdownTimeoutMs);
  t.match(parseLaunchOptions([...more.split(' '), ...command.split(' ')], {}), { nnodes: 2, nodeRank: 0, masterAddr: 'node0.example' });
  if (!verifies) return void t.pass('systemd-analyze', { skip: 'systemd-analyze is not here' });
  // A program that is there, and a user.
  const path = join(t.testdir(), 'story.service');
  writeFileSync(path, unit.replace(/^ExecStart=\S+/m, 'ExecStart=/bin/true').replace(/^User=.*/m, 'User=root'));
  const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', path], { encoding: 'utf8' });
  t.same({ status, stderr }, { status: 0, stderr: '' });
});
