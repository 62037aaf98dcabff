/** A rank's side of the control socket: which epoch it is in, however the launcher's messages arrive. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import t from 'tap';
import { encodeControl, type GangInfo, type ToRank } from '../../../protocol/control.ts';

const gang = (epoch: number): GangInfo => ({ epoch, runDir: `/run/${epoch}`, shmPath: null, nodes: null });
const failure = { rank: 1, exitCode: null, signal: 'SIGKILL', code: null, message: null };
const program = `
  import { Control } from '${new URL('../../../rank/gang/control.ts', import.meta.url)}';
  const { epoch, runDir } = await Control.open({ controlFd: 3 }).gang();
  console.log(epoch, runDir);
`;

/** What a rank that waits for its gang gets from one chunk. */
async function gangOf(messages: readonly ToRank[]): Promise<string> {
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
  });
  (child.stdio[3] as Duplex).write(Buffer.concat(messages.map(encodeControl)));
  let text = '';
  child.stdout?.on('data', (chunk) => {
    text += chunk;
  });
  await once(child, 'close');
  return text.trim();
}

t.test('the newest epoch of one chunk', async (t) => {
  const lost: ToRank = { type: 'lost', epoch: 0, failure };
  t.equal(await gangOf([{ type: 'gang', gang: gang(0) }]), '0 /run/0');
  t.equal(await gangOf([{ type: 'gang', gang: gang(0) }, lost, { type: 'gang', gang: gang(1) }]), '1 /run/1');
});
