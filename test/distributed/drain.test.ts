/** A stop signal while requests are in flight: a script that handles it finishes them on all ranks. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { allGone, fixture, Running } from '../helpers/launcher.ts';

const model = fileURLToPath(new URL('../../examples/models/story-5m', import.meta.url));

t.test('the first SIGTERM leaves a script time to finish what is in flight', async (t) => {
  for (const numRanks of [1, 2, 3]) {
    const gang = new Running([`--nproc-per-node=${numRanks}`, fixture('drain.ts'), model], { env: { OMP_NUM_THREADS: '1' } });
    const pids = await gang.ranks(numRanks);
    await gang.printed(/generating/);
    gang.child.kill('SIGTERM');
    const { code, stdout, stderr } = await gang.ended();
    t.equal(code, 0, stderr);
    t.match(stdout, /ended 200 200\n.*closed\n/, `${numRanks} ranks`);
    await allGone(pids);
    t.same(gang.leftovers(), []);
  }
});
