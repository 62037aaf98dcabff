/** Rank 0's error for a lost rank. */
import t from 'tap';
import { peerLost } from '../../../rank/gang/peer-watch.ts';

t.test('the error names the rank, how it ended, and why', async (t) => {
  const failure = { rank: 3, exitCode: null, signal: 'SIGKILL', code: null, message: null };
  const killed = peerLost(failure);
  t.match(killed, { code: 'ERR_PEER_LOST', message: 'Expected rank 3 to go on but it was ended by SIGKILL' });
  t.equal(killed.cause, undefined);
  const failed = peerLost({ rank: 1, exitCode: 65, signal: null, code: 'ERR_TENSOR', message: 'no such tensor' });
  t.match(failed, { code: 'ERR_PEER_LOST', message: 'Expected rank 1 to go on but it exited with code 65: no such tensor' });
  t.match(failed.cause, { code: 'ERR_TENSOR', message: 'no such tensor' });
  const thrown = peerLost({ rank: 1, exitCode: 1, signal: null, code: 'ENOENT', message: 'no file' });
  t.match(thrown.message, /exited with code 1: no file/);
  t.equal(thrown.cause, undefined, 'only errors of ours are told apart by their codes');
});
