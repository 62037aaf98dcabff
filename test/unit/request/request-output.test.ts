/** Streamed text of tokens: stop strings, incomplete characters, the end. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { AsyncQueue } from '../../../rank/request/async-queue.ts';
import {
  CompletionBuilder,
  type CompletionOutput,
  RequestOutput,
  TextAssembler,
  type TextOptions,
} from '../../../rank/request/request-output.ts';
import { Tokenizer } from '../../../rank/text/tokenizer.ts';

const folder = fileURLToPath(new URL('../../../examples/models/story-180k', import.meta.url));
const tokenizer = (await Tokenizer.load(folder)) as Tokenizer;

/** Feeds a text token by token, which ends by length, and records the output of each token. */
function assemble(text: string, stop: string[], options: TextOptions = {}) {
  const assembler = new TextAssembler(tokenizer.detokenizer(), stop, options);
  const tokenIds = tokenizer.encode(text);
  const pieces: string[] = [];
  for (const [i, tokenId] of tokenIds.entries()) {
    const update = assembler.push([tokenId], i === tokenIds.length - 1 ? 'length' : null);
    pieces.push(update.text);
    if (update.finishReason !== null) return { ...update, text: pieces.join(''), pieces, numTokens: i + 1 };
  }
  throw new Error('unreachable');
}

t.test('without stop strings all text comes out, as soon as it is whole', async (t) => {
  const text = 'Once upon a time 🦊 ran.';
  const { pieces, ...update } = assemble(text, []);
  t.match(update, { text, finishReason: 'length', stopReason: null });
  t.ok(pieces.includes(''), 'half a fox is held back');
  t.notOk(pieces.join('').includes('\ufffd'));
});

t.test('a stop string ends the text before it and gives the reason', async (t) => {
  const { numTokens, ...update } = assemble('The cat sat on the mat. The end.', ['sat on', 'mat']);
  t.match(update, { text: 'The cat ', finishReason: 'stop', stopReason: 'sat on' });
  t.ok(numTokens < tokenizer.encode('The cat sat on the mat. The end.').length);
});

t.test('a stop string is part of the text if asked for', async (t) => {
  const { text, stopReason } = assemble('The cat sat on the mat. The end.', ['sat on', 'mat'], { includeStopStrInOutput: true });
  t.same([text, stopReason], ['The cat sat on', 'sat on']);
  t.equal(assemble('The cat sat', ['sat on'], { includeStopStrInOutput: true }).text, 'The cat sat');
});

t.test('stop strings lie in the text after the first minTokens tokens, however tokens come', async (t) => {
  const text = 'One cat. Two cats. 🦊 Three cats.';
  const tokenIds = tokenizer.encode(text);
  for (let minTokens = 0; minTokens <= tokenIds.length + 1; minTokens++) {
    // By definition: the text of whole characters in the first minTokens tokens, then a search in the rest.
    const free = tokenizer.detokenizer().push(tokenIds.slice(0, minTokens));
    const at = text.slice(free.length).search(/cat|🦊/u);
    const stop = at < 0 ? null : text.startsWith('cat', free.length + at) ? 'cat' : '🦊';
    const expected = { text: at < 0 ? text : text.slice(0, free.length + at), stopReason: stop };
    t.match(assemble(text, ['cat', '🦊'], { minTokens }), expected, `${minTokens} tokens, one at a time`);
    for (const cut of [0, 1, 3, minTokens, tokenIds.length]) {
      const assembler = new TextAssembler(tokenizer.detokenizer(), ['cat', '🦊'], { minTokens });
      const first = assembler.push(tokenIds.slice(0, cut), null);
      const last = first.finishReason === null ? assembler.push(tokenIds.slice(cut), 'length') : { text: '', stopReason: first.stopReason };
      t.same({ text: first.text + last.text, stopReason: last.stopReason }, expected, `${minTokens} tokens, cut at ${cut}`);
    }
  }
});

const llama2 = JSON.parse(await readFile(new URL('../../fixtures/tokenizers/llama2.tokenizer.json', import.meta.url), 'utf8')) as unknown;

/** The definition: the first place in the whole text where a stop string ends; special tokens before it are left out. */
function expectStop(parts: readonly string[], special: string, stop: string) {
  const whole = parts.join('');
  const at = whole.indexOf(stop);
  const before = at < 0 ? whole : whole.slice(0, at);
  const shown = before.replaceAll(special, '');
  // A part of a special token that the stop string begins in is not shown either.
  const inside = parts.reduce((start, part) => (start + part.length <= before.length ? start + part.length : start), 0);
  const rest = before.slice(inside);
  const cut = at >= 0 && rest !== '' && special.startsWith(rest) && whole.startsWith(special, inside) ? rest.length : 0;
  return { text: shown.slice(0, shown.length - cut), stopReason: at < 0 ? null : stop };
}

for (const [name, some, special] of [
  ['byte-level', tokenizer, '<|endoftext|>'],
  ['byte fallback', new Tokenizer(llama2, {}, 'llama2'), '</s>'],
] as const) {
  t.test(`${name}: a stop string with a special token is found whether that is hidden or not, at every cut`, async (t) => {
    const parts = ['The cat', special, ' sat. 🦊', special, special, 'on\n', special, ' the mat 🦊🦊', special];
    const tokenIds = parts.flatMap((part) => some.encode(part, { addSpecialTokens: false }));
    const whole = some.decode(tokenIds, { skipSpecialTokens: false });
    t.ok(whole.replaceAll(' ', '').includes(parts.join('').replaceAll(' ', '')), 'the parts are the text');
    const pieces = whole
      .split(special)
      .flatMap((part, i) => (i === 0 ? [part] : [special, part]))
      .filter((part) => part !== '');
    const stops = [
      special,
      `cat${special}`,
      `🦊${special}`,
      `🦊${special}${special}`,
      special.slice(1),
      special.slice(0, 3),
      `${special}on`,
      `${special}Q`,
    ];
    for (const stop of stops) {
      const expected = expectStop(pieces, special, stop);
      for (let cut = 0; cut <= tokenIds.length; cut++) {
        for (const skipSpecialTokens of [true, false]) {
          for (const includeStopStrInOutput of [false, true]) {
            const options = { skipSpecialTokens };
            const marked = some.markedDetokenizer([], options);
            const assembler = new TextAssembler(some.detokenizer([], options), [stop], { includeStopStrInOutput }, marked);
            const first = assembler.pushAll(tokenIds.slice(0, cut), null, null);
            const isOver = first.update.finishReason !== null;
            const last = isOver ? null : assembler.pushAll(tokenIds.slice(cut), 'length', null);
            const text = first.update.text + (last?.update.text ?? '');
            const before = skipSpecialTokens
              ? expected.text
              : whole.slice(0, Math.max(0, expected.stopReason === null ? whole.length : whole.indexOf(stop)));
            const wanted = before + (includeStopStrInOutput ? (expected.stopReason ?? '') : '');
            const stopReason = (last ?? first).update.stopReason;
            if (text !== wanted || stopReason !== expected.stopReason)
              t.fail(JSON.stringify({ stop, cut, skipSpecialTokens, includeStopStrInOutput, text, wanted, stopReason }));
          }
        }
      }
    }
  });
}

t.test('what only began like a stop string comes out at the end', async (t) => {
  t.match(assemble('The cat sat', ['sat on']), { text: 'The cat sat', finishReason: 'length', stopReason: null });
});

t.test('a character that never ends is replaced at the end', async (t) => {
  const [firstOfFox] = tokenizer.encode('🦊') as [number];
  const assembler = new TextAssembler(tokenizer.detokenizer(), ['x']);
  t.match(assembler.push([firstOfFox], 'length'), { text: '\ufffd', finishReason: 'length' });
});

t.test('tokens that come together end where they would have ended one by one', async (t) => {
  const pieces = ['a', 'b', 'c', 'd'];
  const detokenizer = () => ({ push: (ids: Iterable<number>) => [...ids].map((id) => pieces[id]).join(''), finish: () => '' }) as never;
  const cut = new TextAssembler(detokenizer(), ['bc']).pushAll([0, 1, 2, 3], 'length', null);
  t.same(cut, { numTokens: 3, update: { text: 'a', finishReason: 'stop', stopReason: 'bc' } });
  const whole = new TextAssembler(detokenizer(), ['x']).pushAll([0, 1, 2, 3], 'stop', 3);
  t.same(whole, { numTokens: 4, update: { text: 'abc', finishReason: 'stop', stopReason: 3 } });
  t.same(new TextAssembler(detokenizer(), []).pushAll([], null, null).numTokens, 0);
});

t.test('without a tokenizer there is no text', async (t) => {
  const assembler = new TextAssembler(null, []);
  t.same(assembler.push([1, 2], 'stop'), { text: '', finishReason: 'stop', stopReason: null });
});

t.test('an output has the first text, its tokens and its end at hand', async (t) => {
  const logprob = { tokenId: 2, logprob: -1, rank: 1, token: 'b', top: [] };
  const chunk = { index: 0, text: 'b', tokenIds: [2], logprobs: [logprob], drafted: null, seed: 7, stopReason: null };
  const builder = new CompletionBuilder();
  builder.push({ ...chunk, finished: false, finishReason: null });
  t.equal(builder.output, null);
  builder.push({ ...chunk, text: 'c', tokenIds: [3], finished: true, finishReason: 'length' });
  const whole = {
    text: 'bc',
    tokenIds: [2, 3],
    logprobs: [logprob, logprob],
    cumulativeLogprob: -2,
    finishReason: 'length',
    stopReason: null,
    speculation: null,
  };
  t.same(builder.output, { index: 0, ...whole });
  const fields = { prompt: 'a', promptTokenIds: [1], promptLogprobs: null, numCachedTokens: 0, seed: 7 };
  const output = new RequestOutput({ ...fields, outputs: [builder.output as CompletionOutput] });
  t.same([output.text, output.tokenIds, output.finishReason], ['bc', [2, 3], 'length']);
});

t.test('a queue delivers what came before an error, in order', async (t) => {
  const queue = new AsyncQueue<number>();
  const waiting = queue.next();
  queue.push(1);
  queue.push(2);
  queue.fail(new Error('first'));
  queue.fail(new Error('second'));
  t.same([await waiting, await queue.next()], [1, 2]);
  await t.rejects(queue.next(), { message: 'first' });
});

t.test('an output as JSON has its getters, and a big seed as text', async (t) => {
  const completion = { text: ' ran', tokenIds: [4, 5], logprobs: null, cumulativeLogprob: null, stopReason: null, speculation: null };
  const outputs = [
    { ...completion, index: 0, finishReason: 'length' },
    { ...completion, index: 1, text: '', tokenIds: [6], finishReason: 'stop' },
  ] as const;
  const fields = { prompt: 'A dog', promptTokenIds: [1, 2, 3], promptLogprobs: null, numCachedTokens: 2 };
  const output = new RequestOutput({ ...fields, seed: 2n ** 63n, outputs });
  t.equal(output.finishReason, 'length');
  t.same(JSON.parse(JSON.stringify(output)), {
    ...fields,
    text: ' ran',
    tokenIds: [4, 5],
    finishReason: 'length',
    numPromptTokens: 3,
    numOutputTokens: 3,
    seed: '9223372036854775808',
    outputs,
  });
  t.equal(JSON.parse(JSON.stringify(new RequestOutput({ ...fields, seed: 7, outputs }))).seed, 7);
});
