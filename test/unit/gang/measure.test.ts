/** Memory that a rank can load into. */
import t from 'tap';
import { measureMemory } from '../../../rank/gang/measure.ts';

t.test('ranks of one node share its memory; those of two do not, whatever their hosts are called', async (t) => {
  const place = (groupRank: number, localRank: number) => measureMemory('cpu', { groupRank, localRank }).place;
  t.equal(place(0, 0), place(0, 1));
  t.not(place(0, 0), place(1, 0));
});
