/** What nodes tell each other when they meet, and what must agree. Pure. */
import { basename } from 'node:path';
import { integerIn, isObject } from '../../protocol/checks.ts';
import { NdsError } from '../../protocol/errors.ts';
import { isString, listOf, mismatch, objectOf, orNull, type Predicate, type Schema, takes } from '../../protocol/schema.ts';
import type { LaunchOptions } from '../options.ts';

/** What a node runs; the caller knows package and native core. */
export interface NodeIdentity {
  /** Version of this package. */
  readonly version: string;
  /** As in `process.arch`. */
  readonly arch: string;
  /** Instruction sets that ranks may use, best first; none for a program of the user's. */
  readonly isas: readonly string[];
  /** Versions of the libraries that write what other nodes read. */
  readonly libraries: Readonly<Record<string, string>>;
}

/** First message of a node to node 0. */
export interface Hello extends NodeIdentity {
  /** Null = the next free one. */
  readonly nodeRank: number | null;
  readonly host: string;
  /** Address that other nodes reach this one at. */
  readonly address: string;
  /** Name of the job; null where none was given. */
  readonly runId: string | null;
  /** Options that all nodes must have the same value of, by name. */
  readonly options: Readonly<Record<string, string>>;
}

/** Answer of node 0 once all nodes have come. */
export interface Welcome {
  readonly nodeRank: number;
  readonly runId: string;
  /** Best instruction set that all nodes have; null where none matters. */
  readonly isa: string | null;
  /** Secret of this run, drawn by node 0: 32 bytes in hexadecimal. */
  readonly secret: string;
  /** `[nnodes]` */
  readonly nodes: readonly NodeAddress[];
}

export interface NodeAddress {
  readonly host: string;
  readonly address: string;
}

const isRecord: Predicate = (value) => isObject(value) && Object.values(value).every(isString);
const isRank = takes(integerIn(0, 1e6));

const helloSchema: Schema = {
  version: isString,
  arch: isString,
  isas: listOf(isString),
  libraries: isRecord,
  nodeRank: orNull(isRank),
  host: isString,
  address: isString,
  runId: orNull(isString),
  options: isRecord,
};

const welcomeSchema: Schema = {
  nodeRank: isRank,
  runId: isString,
  isa: orNull(isString),
  secret: (value) => typeof value === 'string' && /^[\da-f]{64}$/.test(value),
  nodes: listOf(objectOf({ host: isString, address: isString })),
};

/**
 * @param version - of this package: the fields of another version may be others
 * @throws NdsError `ERR_PROTOCOL`, or `ERR_MISMATCH` for another version.
 */
export function readHello(value: unknown, version: string): Hello {
  if (isObject(value) && typeof value['version'] === 'string' && value['version'] !== version) {
    const from = typeof value['host'] === 'string' ? value['host'].slice(0, 80) : 'another node';
    throw new NdsError(
      'ERR_MISMATCH',
      `Expected one version of nano-dist-spec but received ${version} on node 0 and ${value['version'].slice(0, 80)} on ${from}`,
    );
  }
  return read(value, helloSchema, 'a node');
}

/** @throws NdsError `ERR_PROTOCOL`. */
export function readWelcome(value: unknown): Welcome {
  const welcome = read<Welcome>(value, welcomeSchema, 'node 0');
  if (welcome.nodeRank >= welcome.nodes.length) throw new NdsError('ERR_PROTOCOL', `Expected a node rank below ${welcome.nodes.length}`);
  return welcome;
}

function read<T>(value: unknown, schema: Schema, from: string): T {
  const wrong = isObject(value) ? mismatch(value, schema) : 'no object';
  if (wrong !== undefined) throw new NdsError('ERR_PROTOCOL', `Expected a greeting of ${from} but received ${wrong}`);
  return value as T;
}

/** The options that must agree; paths and the script's own arguments may differ, since each node has its own files. */
export function agreedOptions(options: LaunchOptions, localWorldSize: number): Record<string, string> {
  const { startupTimeoutMs, stepTimeoutMs, shutdownTimeoutMs, failureTimeoutMs, nodeTimeoutMs } = options;
  const seconds = (ms: number): string => String(ms / 1000);
  return {
    nnodes: String(options.nnodes),
    'ranks per node': String(localWorldSize),
    'max-restarts': String(options.maxRestarts),
    role: options.roleName,
    'no-node': String(options.noNode),
    script: basename(options.script).replace(/\.\w+$/, ''),
    'startup-timeout': seconds(startupTimeoutMs),
    'step-timeout': seconds(stepTimeoutMs),
    'shutdown-timeout': seconds(shutdownTimeoutMs),
    'failure-timeout': seconds(failureTimeoutMs),
    'node-timeout': seconds(nodeTimeoutMs),
  };
}

/** What two nodes disagree about: `step-timeout: 60 on node 0 (a), 30 on node 1 (b)`. */
export function differences(first: Hello, second: Hello): string[] {
  const found: string[] = [];
  const compare = (name: string, a: string | undefined, b: string | undefined): void => {
    if (a !== b) found.push(`${name}: ${a ?? 'none'} on ${nameOf(first)}, ${b ?? 'none'} on ${nameOf(second)}`);
  };
  compare('version', first.version, second.version);
  compare('architecture', first.arch, second.arch);
  for (const field of ['options', 'libraries'] as const) {
    for (const name of new Set([...Object.keys(first[field]), ...Object.keys(second[field])])) {
      compare(name, ownValue(first[field], name), ownValue(second[field], name));
    }
  }
  if (commonIsa([first, second]) === undefined) compare('instruction sets', first.isas.join(' '), second.isas.join(' '));
  return found;
}

/** The best instruction set that all nodes have; null where no node names any, undefined where they share none. */
export function commonIsa(nodes: readonly Hello[]): string | null | undefined {
  if (nodes.every(({ isas }) => isas.length === 0)) return null;
  return nodes[0]?.isas.find((isa) => nodes.every(({ isas }) => isas.includes(isa)));
}

/** `node 1 (gpu02)`. */
export function nameOf({ nodeRank, host }: Pick<Hello, 'nodeRank' | 'host'>): string {
  return `${nodeRank === null ? 'a node' : `node ${nodeRank}`} (${host.slice(0, 80)})`;
}

function ownValue(record: Readonly<Record<string, string>>, name: string): string | undefined {
  return Object.hasOwn(record, name) ? record[name]?.slice(0, 80) : undefined;
}
