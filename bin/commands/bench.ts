/** `ndsrun bench`: measures, and prints machine and commit. */
import { NdsError } from '../../protocol/errors.ts';

/** @throws NdsError `ERR_USAGE`, until there is something to measure. */
export async function bench(_args: readonly string[]): Promise<number> {
  throw new NdsError('ERR_USAGE', 'ndsrun bench is not available yet');
}
