/** Launchers of several nodes: how they find each other and talk. */
import { NdsError } from '../../protocol/errors.ts';
import { isOwn, ownAddresses } from './addresses.ts';
import { type LinkCall, resolveMaster } from './call.ts';
import { hostLink } from './host.ts';
import { joinLink } from './join.ts';
import type { NodeLink } from './node-link.ts';

export type { LinkCall } from './call.ts';
export type { NodeIdentity, Welcome } from './hello.ts';
export type { NodeLink } from './node-link.ts';

/**
 * Meets the other nodes of the job: hosts them on node 0, else joins them. A node without an index is node 0 if the
 * master address is its own and nobody listens there yet.
 *
 * @throws as `hostLink` and `joinLink` do.
 */
export async function openLink(call: LinkCall): Promise<NodeLink> {
  const { nodeRank, rdzvTimeoutMs } = call.options;
  if (nodeRank !== null) return nodeRank === 0 ? hostLink(call) : joinLink(call);
  const resolved = await resolveMaster(call, performance.now() + rdzvTimeoutMs);
  const own = ownAddresses();
  if (!resolved.some((address) => isOwn(address, own))) return joinLink(call);
  try {
    return await hostLink(call);
  } catch (error) {
    const { code } = (error instanceof NdsError ? (error.cause ?? {}) : {}) as NodeJS.ErrnoException;
    if (code !== 'EADDRINUSE') throw error;
    return joinLink(call);
  }
}
