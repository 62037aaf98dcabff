/** The KV budget: options, measurements and shares yield one number of blocks for all ranks and groups. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { cgroupFreeBytes, cgroupLimitBytes, cgroupUsedBytes, freeMemoryBytes } from '../../../rank/free-memory.ts';
import { type KvBudget, type KvGroup, type RankMemory, resolveNumBlocks } from '../../../rank/kv/budget.ts';
import { deviceMemory, hostMemory } from '../../../rank/kv/rank-memory.ts';

const memory: RankMemory = { freeMemoryBytes: 80_000, localWorldSize: 2 };
const target: KvGroup = { name: 'target', bytesPerBlock: [1000, 600] };
const draft: KvGroup = { name: 'draft', bytesPerBlock: [100, 600] };

/** Blocks on ranks that all share one host. */
function blocks(budget: KvBudget, groups = [target], host: Partial<RankMemory> = {}, mostBlocks = 1_000_000): number {
  const ranks = groups[0]?.bytesPerBlock.map(() => ({ ...memory, ...host })) ?? [];
  return resolveNumBlocks(budget, ranks, groups, mostBlocks);
}

t.test('bytes are of each rank, and the rank with the largest blocks decides', async (t) => {
  t.equal(blocks({ kvCacheMemoryBytes: 10_000 }), 10);
  t.equal(blocks({ kvCacheMemoryBytes: 10_999 }), 10);
  t.equal(blocks({ kvCacheMemoryBytes: 10_000 }, [{ name: 'target', bytesPerBlock: [600, 1000, 999] }]), 10);
  t.equal(blocks({ kvCacheMemoryBytes: 10_000 }, [target], { freeMemoryBytes: 20_000 }), 10);
  t.throws(() => blocks({ kvCacheMemoryBytes: 10_000 }, [target], { freeMemoryBytes: 19_999 }), {
    code: 'ERR_USAGE',
    message:
      'Expected at most 9999 bytes, what each of 2 ranks can have of 19999 free ones on rank 0, for kvCacheMemoryBytes but received 10000',
  });
  t.equal(blocks({ kvCacheMemoryBytes: 2 ** 40 }, [target], {}, 7), 7, 'bytes that are never used need not be there');
});

t.test('a share is of what the host has free, divided by its ranks', async (t) => {
  t.equal(blocks({}), 10, 'a quarter by default');
  t.equal(blocks({ kvCacheMemoryShare: 0.5 }), 20);
  t.equal(blocks({ kvCacheMemoryShare: 1 }, [target], { localWorldSize: 1 }), 80);
  t.equal(blocks({ kvCacheMemoryShare: 0.5 }, [target], { localWorldSize: 4 }), 10);
});

t.test('groups are budgeted together and get as many blocks each', async (t) => {
  // A block of both groups takes 1100 bytes on rank 0 and 1200 on rank 1, though the largest single group is rank 0's.
  t.equal(blocks({ kvCacheMemoryBytes: 12_000 }, [target, draft]), 10);
  t.equal(blocks({ kvCacheMemoryBytes: 11_999 }, [target, draft]), 9);
});

t.test('no block that could never be used is made', async (t) => {
  t.equal(blocks({ kvCacheMemoryBytes: 10_000 }, [target], {}, 7), 7);
});

t.test('a budget below one block is refused with what it would take', async (t) => {
  t.equal(blocks({ kvCacheMemoryBytes: 1000 }), 1);
  t.throws(() => blocks({ kvCacheMemoryBytes: 999 }), {
    code: 'ERR_USAGE',
    message: 'Expected at least 1000 bytes, one block, for kvCacheMemoryBytes but received 999',
  });
  t.throws(() => blocks({ kvCacheMemoryBytes: 1000 }, [target, draft]), {
    code: 'ERR_USAGE',
    message: 'Expected at least 1200 bytes, one block of target and draft, for kvCacheMemoryBytes but received 1000',
  });
  t.throws(() => blocks({ kvCacheMemoryShare: 0.01 }), {
    code: 'ERR_USAGE',
    message:
      'Expected at least 1000 bytes, one block, of rank 0 for kvCacheMemoryShare but received 400: 0.01 of 80000 free bytes for 2 ranks',
  });
});

t.test('the rank with the least memory for its blocks decides, and is named', async (t) => {
  const of = (...free: number[]) => free.map((freeMemoryBytes) => ({ freeMemoryBytes, localWorldSize: 1 }));
  const share = { kvCacheMemoryShare: 1 };
  t.equal(resolveNumBlocks(share, of(10_000, 60_000), [target], 1000), 10, 'rank 0: blocks of 1000');
  t.equal(resolveNumBlocks(share, of(60_000, 4800), [target], 1000), 8, 'rank 1: blocks of 600');
  t.equal(resolveNumBlocks({ kvCacheMemoryBytes: 4800 }, of(60_000, 4800), [target], 1000), 4);
  const refusal = (budget: KvBudget, ...free: number[]) =>
    t.throws(() => resolveNumBlocks(budget, of(...free), [target], 1000), { code: 'ERR_USAGE' });
  t.match(refusal(share, 60_000, 599), {
    message: /at least 600 bytes, one block, of rank 1 .* received 599: 1 of 599 free bytes for 1 rank$/,
  });
  t.match(refusal({ kvCacheMemoryBytes: 6000 }, 60_000, 3599), {
    message:
      'Expected at most 3599 bytes, what each of 1 rank can have of 3599 free ones on rank 1, for kvCacheMemoryBytes but received 6000',
  });
});

const report = (place: string, freeBytes: number, totalBytes = 1000) => ({ place, freeBytes, totalBytes });

t.test('ranks of one place share what the last of them found free', async (t) => {
  const reports = [report('node 0', 800), report('node 1', 900), report('node 0', 600)];
  t.same(hostMemory(reports), [
    { freeMemoryBytes: 600, localWorldSize: 2 },
    { freeMemoryBytes: 900, localWorldSize: 1 },
    { freeMemoryBytes: 600, localWorldSize: 2 },
  ]);
});

t.test('of a device remains its share, less what is in use and what all of its ranks need', async (t) => {
  const reports = [report('gpu 0', 1000), report('gpu 1', 700), report('gpu 0', 990)];
  t.same(deviceMemory(reports, [100, 200, 300], 0.9), [
    {
      freeMemoryBytes: 900 - 10 - 400,
      localWorldSize: 2,
      origin: '0.9 of 1000 bytes (gpuMemoryUtilization), less 10 in use and 400 for weights and a step of its 2 ranks',
    },
    {
      freeMemoryBytes: 900 - 300 - 200,
      localWorldSize: 1,
      origin: '0.9 of 1000 bytes (gpuMemoryUtilization), less 300 in use and 200 for weights and a step of its rank',
    },
    {
      freeMemoryBytes: 900 - 10 - 400,
      localWorldSize: 2,
      origin: '0.9 of 1000 bytes (gpuMemoryUtilization), less 10 in use and 400 for weights and a step of its 2 ranks',
    },
  ]);
  const full = deviceMemory([report('gpu 0', 1000), report('gpu 1', 50)], [100, 100], 0.9);
  t.equal(full[1]?.freeMemoryBytes, 0, 'nothing, not less than that');
  t.throws(() => resolveNumBlocks({ kvCacheMemoryShare: 1 }, full, [target], 10), {
    code: 'ERR_USAGE',
    message: /at least 600 bytes, one block, for the KV of rank 1 but received 0: 0.9 of 1000 bytes .* less 950 in use and 100 for weights/,
  });
  t.throws(() => resolveNumBlocks({ kvCacheMemoryBytes: 600 }, full, [draft], 10), {
    code: 'ERR_USAGE',
    message: /of 0 free ones on rank 1, for kvCacheMemoryBytes but received 600: 0.9 of 1000 bytes/,
  });
});

t.test('groups that know different ranks are a mistake of ours', async (t) => {
  t.throws(() => blocks({}, [target, { name: 'draft', bytesPerBlock: [1] }]), {
    code: 'ERR_INTERNAL',
    message: /2 for target, 1 for draft/,
  });
  t.throws(() => blocks({}, []), { code: 'ERR_INTERNAL', message: /none/ });
});

t.test('what a cgroup uses, less its file caches', async (t) => {
  const root = t.testdir({ v2: '5:cpu:/\n0::/job/a\n', v1: '4:cpu,memory:/job/a\n0::/\n', none: '' });
  const write = (folder: string, files: Record<string, string>) => {
    mkdirSync(join(root, folder), { recursive: true });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(root, folder, name), text);
  };
  const used = (list: string, tree: string) => cgroupUsedBytes(join(root, list), join(root, tree));
  t.equal(used('none', 'tree'), 0);
  t.equal(used('absent', 'tree'), 0);
  t.equal(used('v2', 'tree'), 0, 'nothing there');
  write('tree', { 'memory.current': '900\n', 'memory.stat': 'anon 500\nfile 400\nactive_file 100\ninactive_file 200\n' });
  t.equal(used('v2', 'tree'), 600, 'the path of a host, seen from inside a container');
  write('tree/job/a', { 'memory.current': '500\n', 'memory.stat': 'active_file 30\ninactive_file 20\n' });
  t.equal(used('v2', 'tree'), 450, 'its own folder');
  const stat = 'active_file 1\ntotal_active_file 10\ntotal_inactive_file 5\n';
  write('tree/memory/job/a', { 'memory.usage_in_bytes': '100\n', 'memory.stat': stat });
  t.equal(used('v1', 'tree'), 85);
});

t.test('the innermost limit is not the only one: all cgroups above count, with what they use', async (t) => {
  const root = t.testdir({ v2: '0::/pod/box\n', v1: '4:memory:/pod/box\n' });
  const write = (folder: string, usage: [string, number], limit: [string, number | 'max']) => {
    mkdirSync(join(root, folder), { recursive: true });
    const files = {
      [usage[0]]: `${usage[1]}\n`,
      [limit[0]]: `${limit[1]}\n`,
      'memory.stat': 'inactive_file 100\ntotal_inactive_file 100\n',
    };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(root, folder, name), text);
  };
  const free = (list: string, tree: string) => cgroupFreeBytes(join(root, list), join(root, tree));
  t.equal(free('v2', 'none'), Number.POSITIVE_INFINITY, 'nothing limits');
  write('two/pod/box', ['memory.current', 700], ['memory.max', 'max']);
  t.equal(free('v2', 'two'), Number.POSITIVE_INFINITY, 'no limit of its own');
  write('two/pod', ['memory.current', 1700], ['memory.max', 3000]);
  t.equal(free('v2', 'two'), 1400, 'that of the pod, of which others use a part');
  write('two/pod/box', ['memory.current', 700], ['memory.max', 1000]);
  t.equal(free('v2', 'two'), 400, 'its own');
  write('two/pod', ['memory.current', 4000], ['memory.max', 3000]);
  t.equal(free('v2', 'two'), 0, 'nothing, not less than that');
  write('one/memory/pod/box', ['memory.usage_in_bytes', 700], ['memory.limit_in_bytes', 1000]);
  write('one/memory', ['memory.usage_in_bytes', 5000], ['memory.limit_in_bytes', 2 ** 63]);
  t.equal(free('v1', 'one'), 400);
  const limit = (list: string, tree: string) => cgroupLimitBytes(join(root, list), join(root, tree));
  t.same([limit('v2', 'none'), limit('v2', 'two'), limit('v1', 'one')], [Number.POSITIVE_INFINITY, 1000, 1000]);
});

t.test('what weights and a step take is no part of what a share is of', async (t) => {
  const reports = [report('node 0', 100_000), report('node 0', 100_000)];
  const left = hostMemory(reports, [30_000, 50_000]);
  t.equal(resolveNumBlocks({ kvCacheMemoryShare: 1 }, left, [target], 1000), 10, 'of 20000 that are left, 10000 each');
  const source = 'of 100000 bytes free, less 80000 for weights and a step of its 2 ranks';
  t.throws(() => resolveNumBlocks({ kvCacheMemoryBytes: 11_000 }, left, [target], 1000), {
    code: 'ERR_USAGE',
    message: `Expected at most 10000 bytes, what each of 2 ranks can have of 20000 free ones on rank 0, for kvCacheMemoryBytes but received 11000: ${source}`,
  });
  t.throws(() => resolveNumBlocks({}, hostMemory(reports, [50_000, 49_999]), [target], 1000), {
    message: / received 0: 0.25 of 1 free bytes for 2 ranks, of 100000 bytes free, less 99999 for weights/,
  });
});

t.test('free memory is a number of bytes that the host has', async (t) => {
  const free = freeMemoryBytes();
  t.ok(free > 0 && free <= totalmem());
});
