/** Streaming decoding against decoding all bytes at once. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'tap';
import { Detokenizer } from '../../../rank/text/detokenizer.ts';
import { TokenBytes } from '../../../rank/text/token-bytes.ts';
import { Tokenizer } from '../../../rank/text/tokenizer.ts';
import { randomIntegers } from '../../helpers/random.ts';

const fixtures = join(import.meta.dirname, '../../fixtures/tokenizers');
const storyModel = join(import.meta.dirname, '../../../examples/models/story-5m');

async function load(name: string): Promise<{ tokenizer: Tokenizer; pieces: [string, number][] }> {
  const json = JSON.parse(await readFile(join(fixtures, `${name}.tokenizer.json`), 'utf8')) as { model: { vocab: Record<string, number> } };
  return { tokenizer: new Tokenizer(json, {}, name), pieces: Object.entries(json.model.vocab) };
}

const texts = [
  '👨‍👩‍👧‍👦🏳️‍🌈👍🏽🇫🇷', // joiners, variation selectors, skin tones, flags
  'e\u0301 a\u0300\u0301\u0302 \u1112\u1161\u11ab', // combining marks, conjoining jamo
  '你好,世界 こんにちは 안녕 नमस्ते สวัสดี',
  '\ufeffbom \ufeff in the middle', // a BOM is text here
  '𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \u0000\u0001 \u2028',
  ' leading and trailing ',
];

for (const name of ['llama2', 'llama3', 'qwen3', 'smollm2']) {
  test(`${name}: token by token, texts come back whole and no character is ever cut`, async (t) => {
    const { tokenizer } = await load(name);
    for (const text of texts) {
      const ids = tokenizer.encode(text, { addSpecialTokens: false });
      const detokenizer = tokenizer.detokenizer();
      const deltas = ids.map((id) => detokenizer.push([id]));
      const rest = detokenizer.finish();
      // llama2 spells rare characters in runs of single bytes, and a run may end only with the text.
      if (name !== 'llama2') t.equal(rest, '', 'nothing was pending');
      t.equal(deltas.join('') + rest, name === 'qwen3' ? text.normalize('NFC') : text);
      t.notOk(
        deltas.some((delta) => /\p{Surrogate}|\ufffd/u.test(delta)),
        'every delta is whole characters',
      );
    }
  });
}

test('random byte-level ids, in random chunks, give what their bytes give at once', async (t) => {
  const { tokenizer, pieces } = await load('llama3');
  const byPiece = new Map(pieces);
  // U+0100 … U+0143 and printable Latin-1 spell single bytes, by the published definition of the alphabet.
  const units = [...Array(256).keys()].filter((b) => !((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174));
  const unitOf = (byte: number): string => String.fromCharCode(units.includes(byte) ? 256 + units.indexOf(byte) : byte);
  const idOf = (byte: number): number => byPiece.get(unitOf(byte)) as number;
  const pick = randomIntegers(11);
  const starters = [0x41, 0x20, 0xc3, 0xe2, 0xef, 0xf0, 0xf4, 0x80, 0xa9, 0xbf, 0xbb, 0xff, 0x9f, 0x98];
  for (let round = 0; round < 500; round++) {
    const bytes = Array.from({ length: 1 + pick(30) }, () => (pick(2) === 0 ? pick(256) : (starters[pick(starters.length)] as number)));
    const detokenizer = tokenizer.detokenizer();
    let text = '';
    for (let i = 0; i < bytes.length; ) {
      const end = i + 1 + pick(4);
      text += detokenizer.push(bytes.slice(i, end).map(idOf));
      i = end;
    }
    text += detokenizer.finish();
    if (text !== Buffer.from(bytes).toString('utf8')) t.fail(`bytes ${bytes}: ${JSON.stringify(text)}`);
  }
  t.end();
});

test('byte fallback: a run of bytes appears when it has ended, as characters or as one U+FFFD for each byte', async (t) => {
  const { tokenizer, pieces } = await load('llama2');
  const byPiece = new Map(pieces);
  const bytes = (text: string): number[] =>
    [...Buffer.from(text)].map((byte) => byPiece.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`) as number);
  const a = byPiece.get('a') as number;
  const [bos, emoji] = [1, bytes('🙂')];
  const push = (...ids: number[][]) => {
    const detokenizer = tokenizer.detokenizer();
    return [...ids.map((some) => detokenizer.push(some)), detokenizer.finish()];
  };
  t.same(push(emoji.slice(0, 2), emoji.slice(2), [a]), ['', '', '🙂a', '']);
  t.same(push(emoji, [bos], emoji), ['', '', '', '🙂🙂'], 'a special token that is left out ends no run');
  t.same(push(emoji.slice(0, 3), [a]), ['', '\ufffd\ufffd\ufffda', '']);
  t.same(push([...emoji, ...emoji.slice(0, 2)]), ['', '\ufffd'.repeat(6)]);
  t.same(push(bytes('a'), emoji.slice(1, 2), [a]), ['', '', '\ufffd\ufffda', '']);
});

for (const name of ['llama2', 'llama3', 'qwen3', 'smollm2', 'story']) {
  test(`${name}: random ids in random pieces give what the Rust library gives at once`, async (t) => {
    const tokenizer = name === 'story' ? ((await Tokenizer.load(storyModel)) as Tokenizer) : (await load(name)).tokenizer;
    const vectors = JSON.parse(await readFile(join(fixtures, `${name}.vectors.json`), 'utf8')) as {
      decodes: { ids: number[]; text: string; text_all?: string }[];
    };
    const pick = randomIntegers(17);
    for (const { ids, text, text_all = text } of vectors.decodes) {
      for (const skipSpecialTokens of [true, false]) {
        const detokenizer = tokenizer.detokenizer([], { skipSpecialTokens });
        let decoded = '';
        for (let i = 0; i < ids.length; ) {
          const end = i + pick(4);
          const delta = detokenizer.push(ids.slice(i, end));
          if (/\p{Surrogate}/u.test(delta)) t.fail(`half a character of ${ids}`);
          decoded += delta;
          i = end;
        }
        decoded += detokenizer.finish();
        if (decoded !== (skipSpecialTokens ? text : text_all)) t.fail(`${ids}: ${JSON.stringify(decoded)}`);
      }
    }
    t.ok(vectors.decodes.length >= 100);
  });
}

/** Counts reads. */
class CountingBytes extends TokenBytes {
  numBytes = 0;

  override get(id: number): Uint8Array {
    const bytes = super.get(id);
    this.numBytes += bytes.length;
    return bytes;
  }
}

test('work is linear: every byte is looked at once, whatever came before', (t) => {
  const pieces = ['ab', 'é', '<0xF0>', '<0x9F>', '</s>'];
  const decoder = { type: 'Sequence', decoders: [{ type: 'ByteFallback' }, { type: 'Fuse' }] };
  for (const numTokens of [1000, 4000]) {
    const tokenBytes = new CountingBytes(pieces, decoder, 'counting');
    const detokenizer = new Detokenizer(tokenBytes, { skipTokenIds: new Set([4]), continuing: false });
    let numBytes = 0;
    for (let i = 0; i < numTokens; i++) {
      const id = i % 2 === 0 && i < numTokens / 2 ? i % 5 : 2;
      numBytes += [2, 2, 1, 1, 0][id] ?? 0;
      detokenizer.push([id]);
    }
    detokenizer.finish();
    t.equal(tokenBytes.numBytes, numBytes, `${numTokens} tokens`);
  }
  t.end();
});

test('text of a single token', async (t) => {
  const { tokenizer, pieces } = await load('llama2');
  const byPiece = new Map(pieces);
  const text = (piece: string) => tokenizer.tokenText(byPiece.get(piece) as number);
  t.same(['▁the', 'a', '<0x41>', '<0xF0>'].map(text), [' the', 'a', 'A', '\ufffd']);
  t.same(
    [1, 2, 1_000_000].map((id) => tokenizer.tokenText(id)),
    ['<s>', '</s>', ''],
  );
  const { tokenizer: qwen } = await load('qwen3');
  t.same(
    qwen.encode(' a<|im_end|>').map((id) => qwen.tokenText(id)),
    [' a', '<|im_end|>'],
  );
});

test('a leading space is dropped at the start of a text and kept after a prompt', async (t) => {
  const { tokenizer, pieces } = await load('llama2');
  const [bos, the] = [1, new Map(pieces).get('▁the') as number];
  t.equal(tokenizer.detokenizer().push([the, the]), 'the the');
  t.equal(tokenizer.detokenizer([bos]).push([the]), 'the', 'special tokens are no text');
  t.equal(tokenizer.detokenizer([bos, the]).push([the]), ' the');
  const late = tokenizer.detokenizer();
  t.equal(late.push([bos]), '');
  t.equal(late.push([the]), 'the');
});

test('special tokens and ids without a piece stand for nothing', async (t) => {
  const { tokenizer } = await load('qwen3');
  const [im_end] = tokenizer.encode('<|im_end|>');
  const hi = tokenizer.encode('hi');
  t.equal(im_end, 151645);
  t.equal(tokenizer.decode([151645, ...hi, 151645, 1_000_000]), 'hi');
  t.equal(tokenizer.decode([]), '');
  t.equal(tokenizer.decode([151645, ...hi, 151645, 1_000_000], { skipSpecialTokens: false }), '<|im_end|>hi<|im_end|>');
});
