/** The lines of the KV log, and their consistency with the engine's blocks. */
import t from 'tap';
import { Engine } from '../../../rank/engine/engine.ts';
import { type KvLog, lineKvLog } from '../../../rank/kv/log.ts';
import { noTrace } from '../../../rank/observe/trace.ts';
import { makeOptions } from '../../helpers/engine-run.ts';
import { FakeExecutor } from '../../helpers/fake-executor.ts';
import { generateRequest } from '../../helpers/requests.ts';

t.test('one line an event', async (t) => {
  const lines: string[] = [];
  const log = lineKvLog((line) => lines.push(line));
  log.allocate('3', [5, 6], 10);
  log.allocate('3', [7], 9);
  log.hit('4.1', [1, 2], 8);
  log.table('3', [5, 6, 7]);
  log.slot('3', 1);
  log.write(12, '3', 0, 5, [5, 6, 7], 4);
  log.write(13, '3', 5, 1, [5, 6, 7], 4);
  log.write(14, '3', 3, 9, [5, 6, 7], 4);
  log.cache('3', 5);
  log.copy('3', 5, 8);
  log.evict(2);
  log.free('3', [7, 6, 5], 12);
  log.rollback('3', 9, 7);
  t.same(lines, [
    'kv allocate request 3: blocks 5 6 (10 free)',
    'kv allocate request 3: block 7 (9 free)',
    'kv hit      request 4.1: blocks 1 2 (8 free)',
    'kv table    request 3: 5 6 7',
    'kv slot     request 3: slot 1',
    'kv write    request 3: step 12, tokens 0-4 -> 5:0-3 6:0',
    'kv write    request 3: step 13, token 5 -> 6:1',
    'kv write    request 3: step 14, tokens 3-11 -> 5:3 6:0-3 7:0-3',
    'kv cache    request 3: block 5',
    'kv copy     request 3: block 5 -> 8',
    'kv evict    block 2',
    'kv free     request 3: blocks 7 6 5 (12 free)',
    'kv rollback request 3: from 9 to 7 cached tokens',
  ]);
});

t.test('what the engine tells: every block that is given comes back, every token is written to a block that is held', async (t) => {
  const held = new Map<number, string>();
  const written = new Map<string, Set<number>>();
  let [numPreemptions, numSlots] = [0, 0];
  const wrong: string[] = [];
  const expect = (condition: boolean, what: string) => condition || wrong.push(what);
  const log: KvLog = {
    allocate: (name, blocks, numFree) => {
      for (const block of blocks) {
        expect(!held.has(block), `block ${block} is given twice`);
        held.set(block, name);
      }
      expect(numFree === 6 - held.size, 'free blocks after an allocation');
    },
    free: (name, blocks, numFree) => {
      for (const block of blocks) {
        expect(held.get(block) === name, `block ${block} comes back from another`);
        held.delete(block);
      }
      expect(numFree === 6 - held.size, 'free blocks after a release');
    },
    table: (name, table) =>
      expect(
        table.every((block) => held.get(block) === name),
        'a table of blocks that are held',
      ),
    slot: () => numSlots++,
    write: (_, name, start, numTokens, table, blockSize) => {
      const tokens = written.get(name) ?? new Set<number>();
      written.set(name, tokens);
      for (let token = start; token < start + numTokens; token++) {
        tokens.add(token);
        expect(held.get(table[Math.floor(token / blockSize)] as number) === name, 'a write to a block of its own');
      }
    },
    hit: () => expect(false, 'no hit'),
    cache: () => expect(false, 'no cache'),
    copy: () => expect(false, 'no copy'),
    evict: () => expect(false, 'no eviction'),
    rollback: (_, before, after) => {
      numPreemptions++;
      expect(before > 0 && after === 0, 'a rollback to nothing');
    },
  };
  const options = makeOptions({ numBlocks: 6, maxNumSeqs: 3, maxNumLogitRows: 8 });
  let numDone = 0;
  const failures: unknown[] = [];
  await new Promise<void>((resolve) => {
    const engine = new Engine(options, new FakeExecutor(options, 31), { trace: noTrace, kvLog: log });
    engine.listen((event) => {
      if (event.type === 'tokens' && event.finishReason !== null) numDone++;
      if (event.type === 'failed') failures.push(event.error);
      if (numDone === 3 || event.type === 'failed') resolve();
    });
    for (const requestId of [0, 1, 2]) engine.post(generateRequest(requestId, [1, 2, 3, 4, 5]));
  });
  t.same(failures, []);
  t.same(wrong, []);
  t.equal(held.size, 0, 'no block is left');
  t.ok(numPreemptions > 0, 'some gave way');
  t.equal(numSlots, 3 + numPreemptions, 'a slot for each, and again after giving way');
  // The last token of a sequence is never cached.
  for (const requestId of [0, 1, 2]) t.equal(written.get(String(requestId))?.size, 5 + 10 - 1);
});

t.test('samples that share a prompt, and a prompt that is cached', async (t) => {
  const lines: string[] = [];
  const options = makeOptions({ numBlocks: 8, enablePrefixCaching: true });
  const engine = new Engine(options, new FakeExecutor(options, 31), {
    trace: noTrace,
    kvLog: lineKvLog((line) => lines.push(line)),
  });
  const idle = async () => {
    do await new Promise(setImmediate);
    while (engine.stats.numRunning + engine.stats.numWaiting > 0);
  };
  engine.post(generateRequest(0, [1, 2, 3, 4, 5, 6], { n: 2, maxTokens: 2 }));
  await idle();
  engine.post(generateRequest(1, [1, 2, 3, 4], { maxTokens: 2 }));
  await idle();
  const told = lines.filter((line) => /^kv (hit|copy|cache)/.test(line));
  t.same(told, [
    'kv cache    request 0.0: block 0',
    'kv hit      request 0.1: blocks 0 1 (6 free)',
    'kv copy     request 0.1: block 1 -> 2',
    'kv hit      request 1: block 0 (7 free)',
    'kv copy     request 1: block 0 -> 2',
  ]);
});
