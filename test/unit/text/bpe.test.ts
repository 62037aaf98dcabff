/** Our merges against those of `@huggingface/tokenizers`, by definition, and their work. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { test } from 'tap';
import { Bpe, type BpeModel, mergePair } from '../../../rank/text/bpe.ts';
import { MergeQueue } from '../../../rank/text/merge-queue.ts';
import { randomIntegers } from '../../helpers/random.ts';

const fixtures = join(import.meta.dirname, '../../fixtures/tokenizers');
const storyFile = join(import.meta.dirname, '../../../examples/models/story-5m/tokenizer.json');

async function readModel(name: string): Promise<BpeModel> {
  const file = name === 'story' ? storyFile : join(fixtures, `${name}.tokenizer.json`);
  return (JSON.parse(await readFile(file, 'utf8')) as { model: BpeModel }).model;
}

function createPackageModel(model: BpeModel): (word: string) => number[] {
  const whole = {
    model: { type: 'BPE', ...model },
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
  };
  const tokenizer = new HuggingFaceTokenizer(whole, {});
  return (word) => (tokenizer.model?._call([word]) ?? []).map((piece: string) => tokenizer.token_to_id(piece) as number);
}

/** The definition: the leftmost pair of the lowest rank is merged until none has a rank. */
function mergeByDefinition({ vocab, merges }: BpeModel, word: string): (number | undefined)[] {
  const ranks = new Map(merges.map((merge, rank) => [mergePair(merge).join(' '), rank]));
  const parts = [...word];
  for (;;) {
    let [best, at] = [Number.POSITIVE_INFINITY, -1];
    for (let i = 0; i + 1 < parts.length; i++) {
      const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? best;
      if (rank < best) [best, at] = [rank, i];
    }
    if (at < 0) return parts.map((part) => vocab[part]);
    parts.splice(at, 2, `${parts[at]}${parts[at + 1]}`);
  }
}

for (const name of ['story', 'llama2', 'llama3', 'qwen3', 'smollm2']) {
  test(`${name}: random words as the package merges them`, async (t) => {
    const model = await readModel(name);
    const bpe = new Bpe(model);
    const expected = createPackageModel(model);
    const pieces = Object.keys(model.vocab).filter((piece) => !/[<>|]/.test(piece));
    const pick = randomIntegers(29);
    for (let round = 0; round < 400; round++) {
      const few = Array.from({ length: 1 + pick(6) }, () => pieces[pick(pieces.length)] as string);
      const word = Array.from({ length: 1 + pick(round < 350 ? 12 : 300) }, () => few[pick(few.length)]).join('');
      if ([...word].some((character) => !Object.hasOwn(model.vocab, character))) continue;
      const ids = bpe.encode(word);
      if (ids.join() !== expected(word).join()) t.fail(`${JSON.stringify(word)}: ${ids}`);
      if (bpe.encode(word).join() !== ids.join()) t.fail(`${JSON.stringify(word)} again`);
      if (word.length < 60 && !model.ignore_merges && ids.join() !== mergeByDefinition(model, word).join())
        t.fail(`by definition: ${word}`);
    }
    t.ok(bpe.encode(pieces[0] as string).length > 0);
  });
}

test('characters without a piece: left out, spelled in bytes, or unknown as the Rust library has it', (t) => {
  const vocab = { a: 0, b: 1, ab: 2, '<unk>': 3, '<0xC3>': 4, '<0xA9>': 5, aa: 6 };
  const merges = ['a b', 'a a'];
  t.same(new Bpe({ vocab, merges }).encode('axbé'), [2], 'what is left is merged');
  t.same(new Bpe({ vocab, merges, unk_token: '<unk>' }).encode('axxb'), [0, 3, 3, 1]);
  t.same(new Bpe({ vocab, merges, unk_token: '<unk>', fuse_unk: true }).encode('axxb'), [0, 3, 1]);
  t.same(new Bpe({ vocab, merges, byte_fallback: true }).encode('aéxa'), [0, 4, 5, 0]);
  t.same(new Bpe({ vocab, merges, byte_fallback: true, unk_token: '<unk>' }).encode('axéa'), [0, 4, 5, 3, 0], 'the unknown token is late');
  t.same(new Bpe({ vocab, merges, ignore_merges: true }).encode('<unk>'), [3]);
  t.same(new Bpe({ vocab, merges }).encode(''), []);
  t.throws(() => new Bpe({ vocab, merges, unk_token: '?' }).encode('x'), { code: 'ERR_TOKENIZER', message: /unk_token .* "\?"/ });
  t.end();
});

test('work grows as n log n: each merge queues two more, each queued one sinks once', async (t) => {
  const model = await readModel('llama3');
  const bpe = new Bpe(model);
  const pick = randomIntegers(31);
  for (const length of [1000, 10_000, 100_000]) {
    for (const word of ['a'.repeat(length), 'ab'.repeat(length / 2), Array.from({ length }, () => 'etaoin'.charAt(pick(6))).join('')]) {
      const queue = new MergeQueue();
      bpe.encodeUncached(word, queue);
      t.ok(queue.numAdded <= 3 * length, `${queue.numAdded} queued for ${length} characters`);
      t.ok(queue.numSwaps <= 2 * queue.numAdded * Math.log2(3 * length), `${queue.numSwaps} swaps for ${length} characters`);
    }
  }
});

test('the queue gives the lowest rank first, then the leftmost', (t) => {
  const pick = randomIntegers(37);
  for (let round = 0; round < 200; round++) {
    const queue = new MergeQueue();
    const merges = Array.from({ length: pick(40) }, () => ({ rank: pick(2 ** 22), position: pick(2 ** 30) }));
    if (round % 2 === 0) for (const merge of merges) merge.rank %= 3;
    for (const { rank, position } of merges) queue.add(rank, position);
    const taken = Array.from(merges, () => queue.take());
    t.same(
      taken,
      merges.sort((a, b) => a.rank - b.rank || a.position - b.position),
      { diagnostic: false },
    );
    t.equal(queue.take(), undefined);
  }
  t.end();
});
