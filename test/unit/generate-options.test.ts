/** Options of `ndsrun generate` for sampling, and how several continuations are written out. */
import t from 'tap';
import { Continuations } from '../../bin/commands/continuations.ts';
import { samplingOf, samplingSpecs } from '../../bin/commands/sampling-options.ts';
import { parseCommandLine } from '../../launcher/command-line.ts';
import { resolveSamplingParams } from '../../rank/sampling-params.ts';

const shape = { usage: 'ndsrun generate', description: '', specs: samplingSpecs, stopAtOperand: false };
const parse = (args: readonly string[], json = false) => samplingOf(parseCommandLine(shape, args).options, json);

t.test('options become sampling parameters that the rank takes', async (t) => {
  const params = parse(
    [
      '--presence-penalty=-0.5',
      '--frequency-penalty=0.25',
      '--repetition_penalty=1.2',
      '--logit-bias=5=-100',
      '--logit-bias=7=0.5',
      '--allowed-token-ids=1,2,3',
      '--bad-words=no',
      '--bad-words=not at all',
      '--min-tokens=2',
      '--stop-token-ids=4',
      '--stop-token-ids=5,6',
      '--include-stop-str-in-output',
      '--n=3',
      '--logprobs=5',
      '--prompt-logprobs=0',
      '--no-skip-special-tokens',
    ],
    true,
  );
  t.match(resolveSamplingParams(params), {
    presencePenalty: -0.5,
    frequencyPenalty: 0.25,
    repetitionPenalty: 1.2,
    logitBias: [
      [5, -100],
      [7, 0.5],
    ],
    allowedTokenIds: [1, 2, 3],
    badWords: ['no', 'not at all'],
    minTokens: 2,
    stopTokenIds: [4, 5, 6],
    includeStopStrInOutput: true,
    n: 3,
    logprobs: 5,
    promptLogprobs: 0,
    skipSpecialTokens: false,
  });
  const { seed: _, ...absent } = resolveSamplingParams(parse([]));
  const { seed: __, ...ours } = resolveSamplingParams();
  t.same(absent, ours, 'what is not given is left to the rank');
});

t.test('what is no option value is refused', async (t) => {
  for (const args of [
    ['--logit-bias=5'],
    ['--logit-bias=x=1'],
    ['--logit-bias=5=much'],
    ['--logit-bias=5=1', '--logit-bias=5=2'],
    ['--allowed-token-ids=1,,2'],
    ['--stop-token-ids='],
    ['--bad-words='],
    ['--n=some'],
  ])
    t.throws(() => parse(args), { code: 'ERR_USAGE' }, args.join(' '));
  t.throws(() => parse(['--logprobs=1']), { code: 'ERR_USAGE', message: /--json/ });
  t.throws(() => parse(['--prompt-logprobs=1']), { code: 'ERR_USAGE', message: /--json/ });
});

t.test('continuations that come interleaved are written one after the other', async (t) => {
  const continuations = new Continuations();
  const piece = { seed: 2n ** 60n, finishReason: null, stopReason: null };
  continuations.take({ ...piece, index: 1, text: 'b', tokenIds: [2], logprobs: ['x'] });
  continuations.take({ ...piece, index: 0, text: 'a', tokenIds: [1, 3], promptLogprobs: [null, 'p'] });
  continuations.take({ ...piece, index: 1, text: 'c\n', tokenIds: [4], logprobs: ['y'], finishReason: 'length' });
  continuations.take({ ...piece, index: 0, text: '', tokenIds: [], finishReason: 'stop', stopReason: '.' });
  t.equal(continuations.numTokens, 4);
  t.equal(continuations.text, '--- 1 of 2 ---\na\n--- 2 of 2 ---\nbc\n');
  const seed = String(2n ** 60n);
  t.same(continuations.describe('p'), [
    { prompt: 'p', text: 'a', tokenIds: [1, 3], seed, finishReason: 'stop', stopReason: '.', promptLogprobs: [null, 'p'] },
    { prompt: 'p', text: 'bc\n', tokenIds: [2, 4], seed, finishReason: 'length', stopReason: null, logprobs: ['x', 'y'] },
  ]);
});
