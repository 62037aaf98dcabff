/** Connections between the hosts of an epoch: each host's leader listens, publishes its port and connects to the others. */
import type { GangInfo, NodesInfo } from '../../protocol/control.ts';
import { NdsError } from '../../protocol/errors.ts';
import type { RankEnv } from '../../protocol/rank-env.ts';
import type { Mesh, MeshPlace } from '../native.ts';
import type { Control } from './control.ts';

/** The part of a rank's environment that its mesh uses. */
export type MeshEnv = Pick<RankEnv, 'groupRank' | 'groupWorldSize' | 'localRank' | 'startupTimeoutMs'>;

/** Key under which the leader of a node publishes its port. */
const portKey = (nodeRank: number) => `mesh-port-${nodeRank}`;

/**
 * Meets the other hosts' leaders, once an epoch; the ranks beside a leader need none.
 * @param listen - opens a port of a local address
 * @param signal - ends the connections, waiting ones too
 * @throws NdsError as `Mesh.connect`; `ERR_PROTOCOL` for a port that is none, `ERR_CLOSED` for an epoch that is over
 */
export async function openMesh(
  env: MeshEnv,
  { epoch, localAddr, addresses, commKey }: Pick<NodesInfo, 'localAddr' | 'addresses' | 'commKey'> & Pick<GangInfo, 'epoch'>,
  control: Pick<Control, 'publish' | 'published'>,
  listen: (localAddr: string) => Mesh,
  signal: AbortSignal,
): Promise<MeshPlace> {
  const { groupRank: nodeRank, groupWorldSize: numNodes, localRank, startupTimeoutMs: timeoutMs } = env;
  if (localRank > 0) return { nodeRank, numNodes, handle: null };
  if (signal.aborted) throw new NdsError('ERR_CLOSED', 'Expected to connect to the other nodes but the epoch is over');
  const handle = listen(localAddr);
  signal.addEventListener('abort', () => handle.close(), { once: true });
  control.publish(epoch, portKey(nodeRank), String(handle.port));
  const portOf = async (node: number) => (node === nodeRank ? handle.port : readPort(node, await control.published(epoch, portKey(node))));
  const ports = await Promise.all(Array.from({ length: numNodes }, (_, node) => portOf(node)));
  const key = Buffer.from(commKey, 'hex');
  await handle.connect({ nodeRank, epoch, key, addresses, ports, timeoutMs });
  return { nodeRank, numNodes, handle };
}

function readPort(node: number, text: string): number {
  const port = Number(text);
  if (Number.isInteger(port) && port > 0 && port < 65_536) return port;
  throw new NdsError('ERR_PROTOCOL', `Expected the port of node ${node} but received "${text.slice(0, 80)}"`);
}
