/** Blocks of the block manager: allocation, sharing, prefix lookup, release. */
import t from 'tap';
import { BlockManager } from '../../../rank/kv/block-manager.ts';
import { extendBlockNames } from '../../../rank/kv/block-names.ts';
import { Sequence } from '../../../rank/scheduler/sequence.ts';
import { generateRequest } from '../../helpers/requests.ts';

function makeSequence(tokenIds: readonly number[] = [1], blockTable: readonly number[] = []): Sequence {
  const sequence = new Sequence(generateRequest(0, tokenIds), 100, 0);
  sequence.blockTable.push(...blockTable);
  return sequence;
}

const range = (length: number, first = 0) => Array.from({ length }, (_, i) => first + i);

/** A sequence whose full blocks are hashed. */
function fill(blocks: BlockManager, tokenIds: readonly number[]): Sequence {
  const sequence = makeSequence(tokenIds);
  blocks.reserve(sequence, tokenIds.length);
  blocks.name(sequence, sequence.blockNames(blocks.blockSize));
  return sequence;
}

t.test('block tables grow to whole blocks, and all blocks come back', async (t) => {
  const blocks = new BlockManager(5, 4);
  const [a, b] = [makeSequence(), makeSequence()];
  t.ok(blocks.reserve(a, 5));
  t.same([a.blockTable.length, blocks.numFreeBlocks], [2, 3]);
  t.ok(blocks.reserve(a, 8), 'the second block has room');
  t.equal(blocks.numFreeBlocks, 3);
  t.ok(blocks.reserve(b, 12));
  t.equal(blocks.numFreeBlocks, 0);
  t.same(new Set([...a.blockTable, ...b.blockTable]), new Set([0, 1, 2, 3, 4]), 'no block is held twice');
  t.notOk(blocks.reserve(a, 9), 'nothing is left');
  t.equal(a.blockTable.length, 2, 'nothing was taken');
  const [first, second] = a.blockTable;
  blocks.release(a);
  t.same([a.blockTable, blocks.numFreeBlocks], [[], 2]);
  t.ok(blocks.reserve(a, 5));
  t.same(a.blockTable, [first, second], 'what was just in use is used again');
});

t.test('a block that is given back twice is found', async (t) => {
  const blocks = new BlockManager(2, 4);
  t.throws(() => blocks.release(makeSequence([1], [1])), {
    code: 'ERR_INTERNAL',
    message: 'Expected a block that is held but block 1 was given back once more',
  });
});

t.test('full blocks are found again by what they hold, from the beginning on', async (t) => {
  const blocks = new BlockManager(8, 4);
  const a = fill(blocks, range(11));
  const table = [...a.blockTable];
  blocks.release(a);
  t.equal(blocks.numFreeBlocks, 8, 'nobody holds them');
  const find = (tokenIds: readonly number[]) => blocks.find(makeSequence(tokenIds).blockNames(4));
  t.same(find(range(11)), table.slice(0, 2), 'the third is not full');
  t.same(find([...range(6), 99, 7]), table.slice(0, 1));
  t.same(find(range(8, 4)), [], 'the same tokens after others are other contents');
  t.same(find([...range(3), 99]), []);
});

t.test('shared blocks leave the free ones, and come back with the last that holds them', async (t) => {
  const blocks = new BlockManager(4, 4);
  const a = fill(blocks, range(8));
  const b = makeSequence(range(9));
  const found = blocks.find(b.blockNames(4));
  t.equal(blocks.countFree(found), 0);
  blocks.share(b, found);
  t.ok(blocks.reserve(b, 9));
  t.equal(blocks.numFreeBlocks, 1);
  blocks.release(a);
  t.equal(blocks.numFreeBlocks, 1, 'b still holds them');
  blocks.release(b);
  t.equal(blocks.numFreeBlocks, 4);
  t.equal(blocks.countFree(found), 2);
});

t.test('a block that others may read is copied before it is written', async (t) => {
  const blocks = new BlockManager(4, 4);
  const a = fill(blocks, range(8));
  const b = makeSequence(range(8));
  blocks.share(b, blocks.find(b.blockNames(4)));
  const copy = blocks.makeWritable(b, 7);
  t.same(copy, [a.blockTable[1], b.blockTable[1]]);
  t.not(b.blockTable[1], a.blockTable[1]);
  t.equal(b.blockTable[0], a.blockTable[0]);
  t.equal(blocks.makeWritable(b, 7), null, 'the copy is its own');
  t.ok(blocks.makeWritable(a, 7), 'a named block is not written either, though nobody else holds it');
  blocks.release(a);
  blocks.release(b);
  t.equal(blocks.numFreeBlocks, 4);
});

t.test('named blocks give way when room is needed, the one unused for longest first, ends before beginnings', async (t) => {
  const blocks = new BlockManager(5, 4);
  const old = fill(blocks, range(8));
  const recent = fill(blocks, range(8, 100));
  blocks.release(old);
  blocks.release(recent);
  const find = (tokenIds: readonly number[]) => blocks.find(makeSequence(tokenIds).blockNames(4)).length;
  const c = makeSequence();
  blocks.reserve(c, 4);
  t.same([blocks.numEvictions, find(range(8)), find(range(8, 100))], [0, 2, 2], 'a blank block goes first');
  blocks.reserve(c, 8);
  t.same([blocks.numEvictions, find(range(8)), find(range(8, 100))], [1, 1, 2], 'the end of the older text');
  blocks.reserve(c, 12);
  t.same([blocks.numEvictions, find(range(8)), find(range(8, 100))], [2, 0, 2]);
  t.notOk(blocks.reserve(c, 24));
});

t.test('the same contents computed twice have one name', async (t) => {
  const blocks = new BlockManager(4, 4);
  const [a, b] = [fill(blocks, range(4)), fill(blocks, range(4))];
  t.equal(blocks.numNamedBlocks, 1);
  blocks.release(b);
  t.same(blocks.find(a.blockNames(4)), a.blockTable);
  blocks.release(a);
  t.equal(blocks.numFreeBlocks, 4);
});

t.test('names are of whole blocks, chained', async (t) => {
  const namesOf = (tokenIds: readonly number[]) => {
    const names: string[] = [];
    extendBlockNames(names, tokenIds, 4);
    return names;
  };
  t.equal(namesOf(range(7)).length, 1);
  const piecewise: string[] = [];
  for (let end = 0; end <= 12; end++) extendBlockNames(piecewise, range(end), 4);
  t.same(piecewise, namesOf(range(12)), 'however often they are extended');
  t.equal(new Set(namesOf([1, 1, 1, 1, 1, 1, 1, 1])).size, 2);
  t.not(namesOf([0, 0, 0, 256])[0], namesOf([0, 0, 1, 0])[0]);
});
