/** Sampling parameters: defaults, ranges, refusals by name, and checks that need the model. */
import t from 'tap';
import { describe } from '../../../protocol/errors.ts';
import { resolveSamplingParams } from '../../../rank/request/sampling-params.ts';
import { badWordTokens, checkAgainstModel } from '../../../rank/request/token-rules.ts';

t.test('absent parameters take their defaults, and the seed is drawn', async (t) => {
  const { seed, ...others } = resolveSamplingParams();
  t.same(others, {
    temperature: 1,
    topK: 0,
    topP: 1,
    minP: 0,
    presencePenalty: 0,
    frequencyPenalty: 0,
    repetitionPenalty: 1,
    logitBias: [],
    allowedTokenIds: null,
    badWords: [],
    minTokens: 0,
    maxTokens: 16,
    stop: [],
    stopTokenIds: [],
    includeStopStrInOutput: false,
    ignoreEos: false,
    n: 1,
    logprobs: null,
    promptLogprobs: null,
    skipSpecialTokens: true,
  });
  t.ok(Number.isSafeInteger(seed) && seed >= 0, `${seed} goes through JSON`);
  t.not(resolveSamplingParams().seed, resolveSamplingParams().seed);
  const undefinedOnly = resolveSamplingParams({ temperature: undefined, seed: undefined, stop: undefined });
  t.match(undefinedOnly, others);
});

t.test('values in range are kept', async (t) => {
  const given = {
    temperature: 0,
    topK: 5,
    topP: 0.5,
    minP: 1,
    presencePenalty: -2,
    frequencyPenalty: 2,
    repetitionPenalty: 1.3,
    allowedTokenIds: [3, 1],
    badWords: [' no', 'No!'],
    minTokens: 1,
    maxTokens: 1,
    stop: ['a', 'b\n'],
    stopTokenIds: [0, 9],
    includeStopStrInOutput: true,
    ignoreEos: true,
    seed: 7,
    n: 128,
    logprobs: 0,
    promptLogprobs: 20,
    skipSpecialTokens: false,
  };
  t.same(resolveSamplingParams(given), { ...given, logitBias: [] });
  t.equal(resolveSamplingParams({ topK: -1 }).topK, 0, '-1 means all, as 0 does');
  t.same(resolveSamplingParams({ stop: 'end' }).stop, ['end']);
  t.same(resolveSamplingParams({ stop: [] }).stop, []);
  t.equal(resolveSamplingParams({ logprobs: null }).logprobs, null);
});

t.test('token ids and biases come in several forms', async (t) => {
  const { allowedTokenIds, stopTokenIds } = resolveSamplingParams({ allowedTokenIds: Int32Array.of(5, 2, 5), stopTokenIds: [] });
  t.same([allowedTokenIds, stopTokenIds], [[5, 2], []], 'each once');
  const biases = [
    [0, -100],
    [12, 0.5],
  ] as const;
  t.same(resolveSamplingParams({ logitBias: { 0: -100, 12: 0.5 } }).logitBias, biases);
  t.same(resolveSamplingParams({ logitBias: new Map(biases) }).logitBias, biases);
  t.same(resolveSamplingParams({ logitBias: {} }).logitBias, []);
});

t.test('a model has defaults of its own, between what is given and ours', async (t) => {
  const defaults = { temperature: 0.6, topK: 20, logprobs: 3 };
  t.match(resolveSamplingParams({ topK: 5, logprobs: null }, defaults), { temperature: 0.6, topK: 5, topP: 1, logprobs: null });
  t.match(resolveSamplingParams({ temperature: undefined }, defaults), { temperature: 0.6, topK: 20 });
  t.throws(() => resolveSamplingParams({}, { temperature: -1 }), { code: 'ERR_REQUEST', message: /for temperature/ });
});

t.test('at least so many tokens are not more than at most so many', async (t) => {
  const message = /at most maxTokens = 16 for minTokens but received 17/;
  t.throws(() => resolveSamplingParams({ minTokens: 17 }), { code: 'ERR_REQUEST', message });
  t.equal(resolveSamplingParams({ minTokens: 17, maxTokens: 17 }).minTokens, 17);
});

t.test('defaults of the model stand in for what is absent, and only for that', async (t) => {
  const defaults = { temperature: 0.5, topK: 20, maxTokens: 99 };
  t.match(resolveSamplingParams({}, defaults), { ...defaults, topP: 1, minP: 0 });
  t.match(resolveSamplingParams({ temperature: 0, topK: undefined, maxTokens: 16 }, defaults), { temperature: 0, topK: 20, maxTokens: 16 });
  t.throws(() => resolveSamplingParams({ temperature: null }, defaults), { code: 'ERR_REQUEST', message: /temperature but received null/ });
});

t.test('a seed is 64 bits, and a bigint only where a number would lose some', async (t) => {
  t.equal(resolveSamplingParams({ seed: 12n }).seed, 12);
  t.equal(resolveSamplingParams({ seed: 2n ** 64n - 1n }).seed, 2n ** 64n - 1n);
  t.equal(resolveSamplingParams({ seed: Number.MAX_SAFE_INTEGER }).seed, Number.MAX_SAFE_INTEGER);
});

t.test('what is out of range, of a wrong type or unknown is refused by name', async (t) => {
  const wrong: Record<string, unknown[]> = {
    temperature: [-0.1, Number.NaN, Number.POSITIVE_INFINITY, 1e-9, 1e9, '1', null, true],
    topK: [-2, 1.5, Number.NaN, 2 ** 31, '3', null],
    topP: [0, -0.1, 1.0001, Number.NaN, 1e-60, '0.5', null],
    minP: [-0.1, 1.1, Number.NaN, '0', null],
    maxTokens: [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '5', null],
    seed: [-1, 1.5, Number.NaN, 2 ** 53, 2n ** 64n, -1n, '1', null],
    stop: ['', [''], [1], 5, null, ['a', ''], 'bad\ud800'],
    ignoreEos: [1, 'true', null],
    presencePenalty: [-2.01, 2.01, Number.NaN, '1', null],
    frequencyPenalty: [-2.01, 2.01, Number.NaN, '1', null],
    repetitionPenalty: [0, -1, 1e-7, 1e7, Number.NaN, '1', null],
    allowedTokenIds: [[], [-1], [1.5], ['1'], 5, null, new Float32Array(1), new Array(2), [2 ** 31]],
    stopTokenIds: [[-1], [1.5], ['1'], 5, null, [2 ** 31]],
    badWords: ['no', [''], ['  '], [1], null, ['bad\ud800']],
    minTokens: [-1, 1.5, '1', null],
    includeStopStrInOutput: [0, 'yes', null],
    n: [0, 129, 1.5, '2', null],
    logprobs: [-1, 21, 1.5, true, '5'],
    promptLogprobs: [-1, 21, 1.5, true, '5'],
    skipSpecialTokens: [0, 'no', null],
    logitBias: [null, 5, [1], new Int32Array(1), { '-1': 1 }, { '01': 1 }, { '1e2': 1 }, { x: 1 }, new Map([[0.5, 1]])],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      t.throws(
        () => resolveSamplingParams({ [name]: value }),
        { code: 'ERR_REQUEST', message: new RegExp(`for ${name} but received `) },
        `${name} = ${describe(value)}`,
      );
    }
  }
  for (const bias of [101, -100.5, Number.NaN, '1', null]) {
    t.throws(() => resolveSamplingParams({ logitBias: { 3: bias } }), { code: 'ERR_REQUEST', message: /for logitBias\[3\] but received/ });
  }
  const twice = new Map<unknown, number>([
    [1, 1],
    ['1', 2],
  ]);
  t.throws(() => resolveSamplingParams({ logitBias: twice }), { code: 'ERR_REQUEST', message: /each token once, for logitBias/ });
});

t.test('an unknown parameter is refused by name, and another spelling is told the right one', async (t) => {
  for (const name of ['best_of', 'use_beam_search', 'logits_processors', 'structured_outputs', 'truncate_prompt_tokens', 'detokenize']) {
    const message = new RegExp(`among temperature, topK, .* but received '${name}'`);
    t.throws(() => resolveSamplingParams({ [name]: 1 }), { code: 'ERR_REQUEST', message });
  }
  const spellings = { top_k: 'topK', include_stop_str_in_output: 'includeStopStrInOutput', prompt_logprobs: 'promptLogprobs' };
  for (const [name, ours] of Object.entries(spellings)) {
    const message = `Expected the sampling parameter ${ours}, in camel case, but received '${name}'`;
    t.throws(() => resolveSamplingParams({ [name]: 1 }), { code: 'ERR_REQUEST', message });
  }
  const answers = {
    max_new_tokens: 'it is maxTokens',
    temp: 'it is temperature',
    maxModelLen: 'it is the load option maxModelLen of LLM.load',
  };
  for (const [name, answer] of Object.entries(answers)) {
    const message = `Expected a known sampling parameter but received '${name}': ${answer}`;
    t.throws(() => resolveSamplingParams({ [name]: 1 }), { code: 'ERR_REQUEST', message });
  }
  t.throws(() => resolveSamplingParams({ temprature: 1 }), { code: 'ERR_REQUEST', message: /\(did you mean temperature\?\)$/ });
  t.throws(() => resolveSamplingParams({ toString: 4 }), { code: 'ERR_REQUEST' });
  for (const params of [null, 4, 'greedy', []])
    t.throws(() => resolveSamplingParams(params), { code: 'ERR_REQUEST', message: /Expected an object/ });
});

t.test('values are described shortly, whatever they are', async (t) => {
  const circular: Record<string, unknown> = {};
  circular['self'] = circular;
  t.same([Number.NaN, 5n, undefined, 'a"b', () => 1, Symbol('x'), circular, 'x'.repeat(100)].map(describe), [
    'NaN',
    '5n',
    'undefined',
    '"a\\"b"',
    'a function',
    'a symbol',
    'a value of type object',
    `"${'x'.repeat(79)}…`,
  ]);
});

const model = { vocabSize: 10, eosTokenIds: [9], badWords: [] };

t.test('tokens that a model does not have are refused by name', async (t) => {
  t.doesNotThrow(() => checkAgainstModel(resolveSamplingParams({ logitBias: { 9: 1 }, allowedTokenIds: [0], stopTokenIds: [9] }), model));
  for (const [name, params] of Object.entries({
    logitBias: { logitBias: { 10: 1 } },
    allowedTokenIds: { allowedTokenIds: [1, 10] },
    stopTokenIds: { stopTokenIds: [10] },
  })) {
    const message = `Expected token ids from 0 to 9 for ${name} but received 10`;
    t.throws(() => checkAgainstModel(resolveSamplingParams(params), model), { code: 'ERR_REQUEST', message });
  }
});

t.test('parameters that may leave nothing to draw are refused', async (t) => {
  const everyId = Array.from({ length: 10 }, (_, id) => id);
  const check = (params: object, badWords: number[][] = []) => checkAgainstModel(resolveSamplingParams(params), { ...model, badWords });
  const refused = { code: 'ERR_REQUEST', message: /for allowedTokenIds but received/ };
  t.throws(() => check({ allowedTokenIds: [3, 4] }, [[3], [5, 4]]), refused, 'bad words bar all that is allowed');
  t.doesNotThrow(() => check({ allowedTokenIds: [3, 4] }, [[3], [4, 5]]));
  t.throws(() => check({ allowedTokenIds: [9], minTokens: 1 }), refused, 'only the end is allowed, and not yet');
  t.doesNotThrow(() => check({ allowedTokenIds: [9] }));
  t.throws(() => check({ allowedTokenIds: [7, 9], minTokens: 1, stopTokenIds: [7] }), refused);
  t.throws(
    () =>
      check(
        {},
        everyId.map((id) => [id]),
      ),
    refused,
    'bad words bar the whole vocabulary',
  );
  t.throws(() => check({ stopTokenIds: everyId.slice(0, 9), minTokens: 2 }), refused);
  t.doesNotThrow(() => check({ stopTokenIds: everyId.slice(0, 8), minTokens: 2 }));
});

t.test('bad words become tokens with and without a space before them', async (t) => {
  // As in a byte-level tokenizer: a word and the same word after a space are different tokens, other text is bytes.
  const vocabulary: Record<string, number> = { no: 300, ' no': 301 };
  const encode = (text: string) => (text in vocabulary ? [vocabulary[text] as number] : [...Buffer.from(text)]);
  t.same(badWordTokens(['no'], encode), [[300], [301]]);
  t.same(badWordTokens(['  no'], encode), [[300], [301]], 'its own spaces do not count');
  t.same(badWordTokens(['no', 'ab', 'no'], encode), [[300], [301], [97, 98], [32, 97, 98]], 'each once');
  // As in a tokenizer that puts a space before every text.
  const spaced = (text: string) => encode(text.startsWith(' ') ? text : ` ${text}`);
  t.same(badWordTokens(['no'], spaced), [[301]]);
  t.throws(() => badWordTokens(['x'], () => []), { code: 'ERR_REQUEST', message: /for badWords but received "x"/ });
});
