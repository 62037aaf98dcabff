/** The options of the launcher: name, help and parser. */
import type { CommandShape, OptionSpec } from './command-line.ts';
import {
  anyText,
  endpoint,
  flag,
  integer,
  nodeCount,
  pause,
  rankCount,
  rankList,
  rendezvous,
  seconds,
  streamMap,
  text,
} from './option-parsers.ts';
import { notedSpecs, refusedSpecs } from './torchrun-specs.ts';

/** By kebab-case name. */
export const launchSpecs = {
  'nproc-per-node': {
    value: 'N|auto|gpu|cpu',
    parse: rankCount,
    help: 'ranks on this node; auto = GPUs that can be used, else 1 (default: auto)',
  },
  nnodes: { value: 'N', parse: nodeCount, help: 'nodes in the job (default: 1)' },
  'node-rank': { value: 'R', parse: integer(0), help: "this node's index, required with more than one node but for c10d" },
  'master-addr': { value: 'ADDR', parse: text, help: 'address or name of node 0, required with more than one node' },
  'master-port': {
    value: 'PORT',
    parse: integer(0, 65535),
    help: 'the port there; 0 = a free one, the default on one node (default on several: 29500)',
  },
  'rdzv-endpoint': { value: 'HOST:PORT', parse: endpoint, help: '--master-addr and --master-port in one' },
  'rdzv-backend': { value: 'NAME', parse: rendezvous, help: 'static, or c10d: nodes without an index get one in order of arrival' },
  'rdzv-id': { value: 'ID', parse: text, help: 'name of the job' },
  role: { value: 'NAME', parse: text, help: 'role of the ranks, in ROLE_NAME (default: default)' },
  standalone: { value: null, parse: flag, help: 'one node, whatever the environment says' },
  'local-addr': { value: 'ADDR', parse: text, help: "this node's address, to bind and to advertise" },
  'token-file': {
    value: 'FILE',
    parse: text,
    help: 'secret of 16 bytes or more, the same on every node; required with more than one node',
  },
  'max-restarts': { value: 'N', parse: integer(0), help: 'restarts after a lost rank (default: 0)' },
  'restart-backoff': {
    value: 'SECONDS',
    parse: pause,
    help: 'wait before a restart, doubled for each up to 30 (default: 1)',
  },
  'log-dir': { value: 'DIR', parse: text, help: 'write the output of every rank to files below it' },
  redirects: {
    short: '-r',
    value: 'STREAMS',
    parse: streamMap,
    help: 'streams that go to files only: 0 none, 1 stdout, 2 stderr, 3 both, or RANK:STREAMS,…',
  },
  tee: { short: '-t', value: 'STREAMS', parse: streamMap, help: 'streams that go to files and to the console' },
  'local-ranks-filter': { value: 'RANKS', parse: rankList, help: 'local ranks whose output the console shows, such as 0,1' },
  'log-line-prefix-template': {
    value: 'TEXT',
    parse: anyText,
    help: "line prefix, '' = none; ${rank}, ${local_rank} and ${role_name} are replaced (default: '[rank ${rank}] ')",
  },
  'startup-timeout': { value: 'SECONDS', parse: seconds, help: 'for all ranks to load (default: 600)' },
  'rdzv-timeout': { value: 'SECONDS', parse: seconds, help: 'for all nodes to meet (default: 300)' },
  'node-timeout': { value: 'SECONDS', parse: seconds, help: 'without a sign of a node, after which it is lost (default: 10)' },
  'step-timeout': { value: 'SECONDS', parse: seconds, help: 'for an active step to make progress (default: 60)' },
  'shutdown-timeout': { value: 'SECONDS', parse: seconds, help: 'for ranks to end after a signal, or after rank 0 (default: 25)' },
  'failure-timeout': { value: 'SECONDS', parse: seconds, help: 'between SIGTERM and SIGKILL after a failure (default: 3)' },
  report: { value: 'FILE', parse: text, help: 'write the error report there' },
  trace: { value: 'FILE', parse: text, help: 'write a trace of all ranks there, for chrome://tracing or Perfetto' },
  record: { value: 'FILE', parse: text, help: 'write every plan and its result there, for ndsrun replay' },
  'no-node': { value: null, also: ['no-python'], parse: flag, help: 'run a program instead of a script' },
  'virtual-local-rank': { value: null, parse: flag, help: 'each rank sees one GPU, as device 0' },
  'dry-run': { value: null, parse: flag, help: "print the plan and each rank's environment as JSON, start nothing" },
  ...notedSpecs,
  ...refusedSpecs,
} satisfies Record<string, OptionSpec<unknown>>;

const { 'no-node': _, ...ofGangs } = launchSpecs;
/** Those of commands that run a gang of their own script. */
export const gangSpecs = ofGangs;

/** The command line of a launch, with the launcher's own options only. */
export const launchShape: CommandShape<typeof launchSpecs> = {
  usage: 'ndsrun [options] [--] script [args...]',
  description: 'Runs a script on several ranks. Every option may also come from NDS_<NAME> or PET_<NAME>.',
  examples: ['ndsrun --nproc-per-node 2 script.ts', 'ndsrun --nproc-per-node 2 --log-dir logs --tee 3 script.ts --its-own option'],
  specs: launchSpecs,
  stopAtOperand: true,
};
