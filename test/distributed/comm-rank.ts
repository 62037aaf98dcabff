/**
 * One rank of comm.test.ts, in its own process. Arguments: rank, world size, number of communicators, ending.
 * Descriptor 3 is the shared memory.
 */
import { type Op, testing } from '../helpers/comm-gang.ts';

const [rank = 0, worldSize = 0, numCommunicators = 0] = process.argv.slice(2, 5).map(Number);
const ending = process.argv[5];
const count = 3000;
const ranks = Array.from({ length: worldSize }, (_, r) => r);
const script: Op[] = [];
for (let i = 0; i < numCommunicators; i++) {
  const data = Float32Array.from({ length: count }, (_, j) => (rank + 1) * 1000 + (j % 100) + i);
  script.push({ op: 'allReduce', count, numRoots: ranks.map(() => 1), merges: ranks.map((r) => Math.min(r, 1)), data });
  script.push({ op: 'allGather', counts: ranks.map((r) => r + 1), data: new Uint8Array(rank + 1).fill(rank) });
  if (i + 1 < numCommunicators) script.push({ op: 'reopen' });
}
script.push({ op: 'setStep', step: 12 });
if (ending === 'waits') script.push({ op: 'allGather', counts: ranks.map(() => 1), data: new Uint8Array(1) });
if (ending === 'is killed') script.push({ op: 'die' });

// A rank that waits for a dead one waits this long.
const stepTimeoutMs = ending === 'ends' ? 600_000 : 5000;
const { outcomes } = testing().commRank({ worldSize, rank, shmFd: 3, stepTimeoutMs, startupTimeoutMs: 600_000 }, script);
const printed = outcomes.map(({ bytes, code, message }) => (bytes ? { bytes: Buffer.from(bytes).toString('base64') } : { code, message }));
process.stdout.write(JSON.stringify(printed));
