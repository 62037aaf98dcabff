/** Whether the job is to outlive its terminal. */
import { basename } from 'node:path';
import type { Environment } from '../protocol/rank-env.ts';

/**
 * Whether SIGHUP was ignored where ndsrun was started, as under nohup. Node restores the signal's default action before
 * any script runs, so the executable's first lines, which a shell runs, leave the answer in `NDS_NOHUP`. Under
 * `nohup npx ndsrun` npm's Node has undone it before them; what is left is `_`, the program that the shell started.
 */
export function isHangupIgnored(env: Environment): boolean {
  return env['NDS_NOHUP'] === '1' || basename(env['_'] ?? '') === 'nohup';
}
