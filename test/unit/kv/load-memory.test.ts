/** A load is refused before it begins where some host or device has less than it needs, with what would fit. */
import t from 'tap';
import { checkLoadMemory, gib, type RankNeeds } from '../../../rank/kv/load-memory.ts';
import { deviceBudgets, hostBudgets } from '../../../rank/kv/rank-memory.ts';

const giB = 2 ** 30;
const needs = (weights: number, step: number, kv: number): RankNeeds => ({ weights: weights * giB, step: step * giB, kv: kv * giB });
const report = (place: string, freeGiB: number, totalGiB = 64) => ({ place, freeBytes: freeGiB * giB, totalBytes: totalGiB * giB });
const none = () => [];

t.test('what the ranks of a host need together is compared with what the last of them found free', async (t) => {
  const budgets = hostBudgets([report('node 0', 30), report('node 0', 24)]);
  t.equal(budgets.length, 1);
  checkLoadMemory(budgets, [needs(10, 1, 1), needs(10, 1, 1)], none, 'ERR_SYSTEM');
  t.throws(() => checkLoadMemory(budgets, [needs(10, 1.5, 1), needs(10, 1, 0.75)], none, 'ERR_SYSTEM'), {
    code: 'ERR_SYSTEM',
    message:
      'Expected 24.3 GiB of memory on node 0 for its 2 ranks (weights 20 GiB, buffers of a step 2.5 GiB, one KV block 1.75 GiB)' +
      ' but received 24 GiB, what is free of 64 GiB; what would fit: a machine with that much',
  });
});

t.test('the place that lacks most is named, and on a device what bounds it', async (t) => {
  const devices = deviceBudgets([report('node 0, device a', 64), report('node 0, device b', 50), report('node 0, device a', 60)], 0.5);
  const fits = [needs(10, 2, 1), needs(16, 1, 1), needs(10, 2, 1)];
  checkLoadMemory(devices, fits, none, 'ERR_USAGE');
  t.throws(() => checkLoadMemory(devices, [needs(14, 1, 1), needs(30, 1, 1), needs(12, 1, 1)], none, 'ERR_USAGE'), {
    code: 'ERR_USAGE',
    message:
      /32 GiB of memory on node 0, device b for rank 1 \(weights 30 GiB, .* but received 18 GiB, 0.5 of 64 GiB \(gpuMemoryUtilization\), less 14 GiB in use;/,
  });
});

t.test('of other ways to load, those that would fit everywhere are named; they are computed for a refusal alone', async (t) => {
  const budgets = hostBudgets([report('node 0', 10), report('node 1', 20)]);
  let numCalls = 0;
  const alternatives = () => {
    numCalls++;
    return [
      { what: 'a', needs: [needs(9, 1, 0), needs(20, 0, 0)] },
      { what: 'b', needs: [needs(9, 1, 0), needs(20, 1, 0)] },
      { what: 'c', needs: [needs(1, 1, 1), needs(1, 1, 1)] },
    ];
  };
  checkLoadMemory(budgets, [needs(1, 1, 1), needs(1, 1, 1)], alternatives, 'ERR_SYSTEM');
  t.equal(numCalls, 0);
  t.throws(() => checkLoadMemory(budgets, [needs(10, 1, 1), needs(1, 1, 1)], alternatives, 'ERR_SYSTEM'), {
    message: /node 0 for rank 0 .*; what would fit: a, or c, or a machine with that much$/,
  });
});

t.test('bytes in GiB', async (t) => {
  t.same([0, 1024, 2 ** 20, 12.34 * giB, 8192 * giB].map(gib), ['0 GiB', '0.000001 GiB', '0.000977 GiB', '12.3 GiB', '8192 GiB']);
});
