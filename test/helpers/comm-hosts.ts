/** Gangs of several hosts that run scripts of collectives: each host's ranks are threads of this process, hosts meet over TCP on the loopback. */
import { randomBytes } from 'node:crypto';
import { type Mesh, type MeshConnectOptions, native } from '../../rank/native.ts';
import type { GangOptions, Op, RankResult } from './comm-gang.ts';

interface NodeOptions extends GangOptions {
  readonly numNodes: number;
  readonly nodeRank: number;
  readonly mesh: Mesh;
}

interface HostsTesting {
  commNode(options: NodeOptions, scripts: Op[][]): Promise<{ results: RankResult[]; close(): void }>;
  sipHash(key: Uint8Array, data: Uint8Array): Uint8Array;
}

export const hostsTesting = (): HostsTesting => native().testing as unknown as HostsTesting;

export const loopback = '127.0.0.1';

/** Port that node `from` calls to reach node `to`, which listens on `port`. */
export type Route = (from: number, to: number, port: number) => number | Promise<number>;

/** Listening meshes of `numNodes` leaders. */
export function listenAll(numNodes: number): Mesh[] {
  return Array.from({ length: numNodes }, () => native().listenMesh(loopback));
}

/** Connects meshes to each other, all with one key unless `options` says otherwise. */
export async function connectAll(
  meshes: readonly Mesh[],
  options: (node: number) => Partial<MeshConnectOptions> = () => ({}),
  route: Route = (_from, _to, port) => port,
): Promise<PromiseSettledResult<void>[]> {
  const key = new Uint8Array(randomBytes(16));
  const addresses = meshes.map(() => loopback);
  return Promise.allSettled(
    meshes.map(async (mesh, nodeRank) => {
      const ports = await Promise.all(meshes.map(({ port }, to) => route(nodeRank, to, port)));
      await mesh.connect({ nodeRank, epoch: 1, key, addresses, ports, timeoutMs: 60_000, ...options(nodeRank) });
    }),
  );
}

/** Meshes of `numNodes` leaders that have met. */
export async function meet(numNodes: number, route?: Route): Promise<Mesh[]> {
  const meshes = listenAll(numNodes);
  for (const met of await connectAll(meshes, undefined, route)) if (met.status === 'rejected') throw met.reason;
  return meshes;
}

/** Runs `scripts[r]` on rank r of a gang with as many hosts as meshes. Default timeouts are far longer than any test. */
export async function runOnHosts(meshes: readonly Mesh[], scripts: Op[][], timeouts: Partial<GangOptions> = {}): Promise<RankResult[]> {
  const numNodes = meshes.length;
  const size = scripts.length / numNodes;
  const options = { worldSize: scripts.length, stepTimeoutMs: 60_000, startupTimeoutMs: 60_000, ...timeouts };
  const nodes = await Promise.all(
    meshes.map((mesh, nodeRank) =>
      hostsTesting().commNode({ ...options, numNodes, nodeRank, mesh }, scripts.slice(nodeRank * size, (nodeRank + 1) * size)),
    ),
  );
  // As late as that: a rank that leaves ends the collectives of others.
  for (const { close } of nodes) close();
  return nodes.flatMap(({ results }) => results);
}
