/**
 * Messages between the job's coordinator, in node 0's launcher, and the agents, one in each node's launcher. Plain
 * values: on node 0 they are passed by a call, to other nodes over the link.
 */
import { integerIn } from '../protocol/checks.ts';
import { failureSchema } from '../protocol/control.ts';
import { isNdsErrorCode, NdsError, type NdsErrorCode } from '../protocol/errors.ts';
import type { FailureRecord, RankErrorRecord } from '../protocol/failure.ts';
import {
  checkMessage,
  isBoolean,
  isCount,
  isString,
  listOf,
  objectOf,
  orNull,
  type Predicate,
  type Schema,
  takes,
} from '../protocol/schema.ts';
import type { RankState } from './rank-state.ts';

/** How a rank ended: an exit code, a signal, or the error that prevented its start. */
export interface RankExit {
  readonly rank: number;
  readonly pid: number | null;
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly spawnError: { readonly code: string | null; readonly message: string } | null;
  /** Milliseconds since the epoch, by its node's clock. */
  readonly time: number;
}

/** What is known of a rank once its output is complete. */
export interface RankOutput {
  readonly stderrTail: readonly string[];
  /** Out-of-memory kills by the kernel since the rank's start: the counter, before and after; null where it counted none. */
  readonly outOfMemoryKills: string | null;
  /** Whether its launcher sent it SIGKILL. */
  readonly wasKilledByLauncher: boolean;
}

/** What the nodes of a job know about each other in one epoch; nothing of it is secret. */
export interface NodesSetup {
  /** `[nnodes]` address that each node is reached at. */
  readonly addresses: readonly string[];
  /** `[worldSize]` CURVE public key of each rank, in Z85. */
  readonly publicKeys: readonly string[];
}

/** From a node's agent to the coordinator. */
export type AgentEvent =
  /** Answer to `prepare`: the CURVE public keys of the node's ranks in this epoch, in order of rank; empty on one node. */
  | { readonly type: 'prepared'; readonly epoch: number; readonly host: string; readonly publicKeys: readonly string[] }
  | { readonly type: 'exit'; readonly epoch: number; readonly exit: RankExit; readonly error: RankErrorRecord | null }
  /** The output of a rank that has exited is complete. */
  | ({ readonly type: 'closed'; readonly epoch: number; readonly rank: number } & RankOutput)
  /** Answer to `inspect`: errors recorded by the node's ranks, ended or not, and the ranks' states. */
  | {
      readonly type: 'inspected';
      readonly epoch: number;
      /** Milliseconds since the epoch, by the node's clock. */
      readonly time: number;
      readonly errors: readonly RankErrorRecord[];
      readonly states: readonly RankState[];
    }
  | { readonly type: 'publish'; readonly epoch: number; readonly key: string; readonly value: string }
  /** A rank has loaded a model. */
  | { readonly type: 'ready'; readonly epoch: number; readonly rank: number }
  /** At regular intervals: what the node's ranks do. */
  | { readonly type: 'states'; readonly epoch: number; readonly states: readonly RankState[] }
  /** The node could not do what it was told, such as open shared memory; with its ranks that run all the same. */
  | { readonly type: 'failed'; readonly code: NdsErrorCode; readonly message: string; readonly running: readonly number[] }
  /** The node's launcher got a stop signal, or SIGUSR2. */
  | { readonly type: 'signalled'; readonly signal: NodeJS.Signals };

/** From the coordinator to a node's agent. */
export type AgentCommand =
  /** Make the run folder, shared memory and keys of an epoch; the answer is `prepared`. */
  | { readonly type: 'prepare'; readonly epoch: number }
  /** Start the node's ranks; one that stays is told of the epoch. */
  | {
      readonly type: 'start';
      readonly epoch: number;
      readonly runId: string;
      /** Whether rank 0 of the epoch before goes on. */
      readonly keepsRankZero: boolean;
      /** Null on one node. */
      readonly nodes: NodesSetup | null;
    }
  /**
   * Record the failure, then end the node's ranks: SIGTERM, and SIGKILL after the failure timeout. Rank 0 is only told
   * of it where it stays. Null = ranks that stayed after rank 0's end.
   */
  | { readonly type: 'stop'; readonly epoch: number; readonly failure: FailureRecord | null; readonly keepsRankZero: boolean }
  /** A rank of any node has ended. */
  | { readonly type: 'ended'; readonly epoch: number; readonly rank: number }
  | { readonly type: 'published'; readonly epoch: number; readonly key: string; readonly value: string }
  /** Answered by `inspected`. */
  | { readonly type: 'inspect'; readonly epoch: number }
  /** Signal every rank of the node that still runs. */
  | { readonly type: 'signal'; readonly signal: NodeJS.Signals }
  /** Print lines on the console. */
  | { readonly type: 'notice'; readonly lines: readonly string[] }
  /** The job has ended. */
  | {
      readonly type: 'finish';
      readonly exitCode: number;
      /** The `ErrorReport` as JSON, for console and `--report`; null = nothing failed. */
      readonly report: string | null;
    };

const isTime: Predicate = (value) => typeof value === 'number' && Number.isFinite(value);
const isSignal: Predicate = (value) => typeof value === 'string' && /^SIG[A-Z0-9]{1,10}$/.test(value);

const exitSchema: Schema = {
  rank: isCount,
  pid: orNull(isCount),
  exitCode: orNull(isCount),
  signal: orNull(isSignal),
  spawnError: orNull(objectOf({ code: orNull(isString), message: isString })),
  time: isTime,
};
const errorSchema: Schema = {
  rank: isCount,
  code: orNull(isString),
  name: isString,
  message: isString,
  stack: orNull(isString),
  exitCode: isCount,
  timestamp: isTime,
};
const stateSchema: Schema = {
  rank: isCount,
  phase: (value) => ['starting', 'loading', 'idle', 'step'].includes(value as string),
  step: orNull(isCount),
  failedStep: orNull(isCount),
  operator: orNull(isString),
  layer: orNull(isCount),
  isDraft: isBoolean,
  waitsIn: orNull(isString),
  waitsFor: orNull(isCount),
  isStopped: isBoolean,
  progress: isCount,
};
const nodesSchema: Schema = { addresses: listOf(isString), publicKeys: listOf(isString) };
const eventSchemas: Readonly<Record<AgentEvent['type'], Schema>> = {
  prepared: { epoch: isCount, host: isString, publicKeys: listOf(isString) },
  exit: { epoch: isCount, exit: objectOf(exitSchema), error: orNull(objectOf(errorSchema)) },
  closed: {
    epoch: isCount,
    rank: isCount,
    stderrTail: listOf(isString),
    outOfMemoryKills: orNull(isString),
    wasKilledByLauncher: isBoolean,
  },
  inspected: { epoch: isCount, time: isTime, errors: listOf(objectOf(errorSchema)), states: listOf(objectOf(stateSchema)) },
  publish: { epoch: isCount, key: isString, value: isString },
  ready: { epoch: isCount, rank: isCount },
  states: { epoch: isCount, states: listOf(objectOf(stateSchema)) },
  failed: { code: isNdsErrorCode, message: isString, running: listOf(isCount) },
  signalled: { signal: isSignal },
};

const commandSchemas: Readonly<Record<AgentCommand['type'], Schema>> = {
  prepare: { epoch: isCount },
  start: { epoch: isCount, runId: isString, keepsRankZero: isBoolean, nodes: orNull(objectOf(nodesSchema)) },
  stop: { epoch: isCount, failure: orNull(objectOf(failureSchema)), keepsRankZero: isBoolean },
  ended: { epoch: isCount, rank: isCount },
  published: { epoch: isCount, key: isString, value: isString },
  inspect: { epoch: isCount },
  signal: { signal: isSignal },
  notice: { lines: listOf(isString) },
  finish: { exitCode: takes(integerIn(0, 255)), report: orNull(isString) },
};

/** @throws NdsError `ERR_PROTOCOL` for a value that is no event. */
export function readAgentEvent(value: unknown): AgentEvent {
  return read<AgentEvent>(value, eventSchemas);
}

/** @throws NdsError `ERR_PROTOCOL` for a value that is no command. */
export function readAgentCommand(value: unknown): AgentCommand {
  return read<AgentCommand>(value, commandSchemas);
}

function read<T>(value: unknown, schemas: Readonly<Record<string, Schema>>): T {
  checkMessage(value, schemas, bad);
  return value as T;
}

function bad(received: string): NdsError {
  return new NdsError('ERR_PROTOCOL', `Expected a known message between launchers but received ${received}`);
}
