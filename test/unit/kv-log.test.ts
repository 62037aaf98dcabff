/** The lines of the KV log, and that the engine's story of its blocks adds up. */
import t from 'tap';
import { Engine, type EngineOptions } from '../../rank/engine.ts';
import { type KvLog, lineKvLog } from '../../rank/kv-log.ts';
import { noTrace } from '../../rank/trace.ts';
import { FakeExecutor } from '../helpers/fake-executor.ts';

t.test('one line an event', async (t) => {
  const lines: string[] = [];
  const log = lineKvLog((line) => lines.push(line));
  log.allocate(3, [5, 6], 10);
  log.allocate(3, [7], 9);
  log.hit(4, [1, 2], 64);
  log.table(3, [5, 6, 7]);
  log.slot(3, 1);
  log.write(12, 3, 0, 5, [5, 6, 7], 4);
  log.write(13, 3, 5, 1, [5, 6, 7], 4);
  log.write(14, 3, 3, 9, [5, 6, 7], 4);
  log.cache(3, 5);
  log.copy(3, 5, 8);
  log.evict(2);
  log.free(3, [7, 6, 5], 12);
  log.preempt(3, 9);
  log.rollback(3, 9, 7);
  t.same(lines, [
    'kv allocate request 3: blocks 5 6 (10 free)',
    'kv allocate request 3: block 7 (9 free)',
    'kv hit      request 4: blocks 1 2 hold its first 64 tokens',
    'kv table    request 3: 5 6 7',
    'kv slot     request 3: slot 1',
    'kv write    request 3: step 12, tokens 0-4 -> 5:0-3 6:0',
    'kv write    request 3: step 13, token 5 -> 6:1',
    'kv write    request 3: step 14, tokens 3-11 -> 5:3 6:0-3 7:0-3',
    'kv cache    request 3: block 5',
    'kv copy     request 3: block 5 -> 8',
    'kv evict    block 2',
    'kv free     request 3: blocks 7 6 5 (12 free)',
    'kv preempt  request 3: tokens 0-8 to be computed again',
    'kv rollback request 3: from 9 to 7 tokens',
  ]);
});

t.test('what the engine tells: every block that is given comes back, every token is written to a block that is held', async (t) => {
  const held = new Map<number, number>();
  const written = new Map<number, Set<number>>();
  let [numPreemptions, numSlots] = [0, 0];
  const wrong: string[] = [];
  const expect = (condition: boolean, what: string) => condition || wrong.push(what);
  const log: KvLog = {
    allocate: (requestId, blocks, numFree) => {
      for (const block of blocks) {
        expect(!held.has(block), `block ${block} is given twice`);
        held.set(block, requestId);
      }
      expect(numFree === 6 - held.size, 'free blocks after an allocation');
    },
    free: (requestId, blocks, numFree) => {
      for (const block of blocks) {
        expect(held.get(block) === requestId, `block ${block} comes back from another`);
        held.delete(block);
      }
      expect(numFree === 6 - held.size, 'free blocks after a release');
    },
    table: (requestId, table) =>
      expect(
        table.every((block) => held.get(block) === requestId),
        'a table of blocks that are held',
      ),
    slot: () => numSlots++,
    write: (_, requestId, start, numTokens, table, blockSize) => {
      const tokens = written.get(requestId) ?? new Set();
      written.set(requestId, tokens);
      for (let token = start; token < start + numTokens; token++) {
        tokens.add(token);
        expect(held.get(table[Math.floor(token / blockSize)] as number) === requestId, 'a write to a block of its own');
      }
    },
    preempt: () => numPreemptions++,
    hit: () => expect(false, 'no hit'),
    cache: () => expect(false, 'no cache'),
    copy: () => expect(false, 'no copy'),
    evict: () => expect(false, 'no eviction'),
    rollback: () => expect(false, 'no rollback'),
  };
  const options: EngineOptions = {
    numBlocks: 6,
    blockSize: 4,
    maxModelLen: 40,
    maxNumSeqs: 3,
    maxNumBatchedTokens: 16,
    maxNumLogitRows: 8,
    vocabSize: 31,
    maxNumPlansInFlight: 2,
  };
  const params = { temperature: 1, topP: 1, minP: 0, topK: 0, seed: 1n, sampleIndex: 0 };
  let numDone = 0;
  const failures: unknown[] = [];
  await new Promise<void>((resolve) => {
    const listener: ConstructorParameters<typeof Engine>[2] = (event) => {
      if (event.type === 'tokens' && event.finishReason !== null) numDone++;
      if (event.type === 'failed') failures.push(event.error);
      if (numDone === 3 || event.type === 'failed') resolve();
    };
    const engine = new Engine(options, new FakeExecutor(options, 31), listener, { trace: noTrace, kvLog: log });
    for (const requestId of [0, 1, 2])
      engine.post({ type: 'generate', requestId, promptTokenIds: [1, 2, 3, 4, 5], maxTokens: 10, eosTokenIds: [], params });
  });
  t.same(failures, []);
  t.same(wrong, []);
  t.equal(held.size, 0, 'no block is left');
  t.ok(numPreemptions > 0, 'some gave way');
  t.equal(numSlots, 3 + numPreemptions, 'a slot for each, and again after giving way');
  // The last token of a sequence is never cached.
  for (const requestId of [0, 1, 2]) t.equal(written.get(requestId)?.size, 5 + 10 - 1);
});
