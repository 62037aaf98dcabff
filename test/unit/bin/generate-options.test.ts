/** Sampling options of `ndsrun generate`, and the output of several continuations. */
import t from 'tap';
import { describeOutput, textOf } from '../../../bin/commands/generate-output.ts';
import { samplingOf, samplingSpecs } from '../../../bin/commands/sampling-options.ts';
import { parseCommandLine } from '../../../launcher/command-line.ts';
import { RequestOutput } from '../../../rank/request/request-output.ts';
import { resolveSamplingParams } from '../../../rank/request/sampling-params.ts';

const shape = { usage: 'ndsrun generate', description: '', examples: [], specs: samplingSpecs, stopAtOperand: false };
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

t.test('several continuations are numbered, and an array for other programs', async (t) => {
  const output = {
    tokenIds: [1],
    logprobs: null,
    cumulativeLogprob: null,
    finishReason: 'length',
    stopReason: null,
    speculation: null,
  } as const;
  const logprob = { tokenId: 2, logprob: -0.5, rank: 1, token: 'b', top: [] };
  const fields = { prompt: 'p', promptTokenIds: [9], numCachedTokens: 0, seed: 2n ** 60n };
  const one = new RequestOutput({ ...fields, promptLogprobs: null, outputs: [{ ...output, index: 0, text: 'a' }] });
  const two = new RequestOutput({
    ...fields,
    promptLogprobs: [null, logprob],
    outputs: [
      { ...output, index: 0, text: 'a' },
      { ...output, index: 1, text: 'b\n', logprobs: [logprob] },
    ],
  });
  t.equal(textOf(two), '--- 1 of 2 ---\na\n--- 2 of 2 ---\nb\n');
  const common = {
    prompt: 'p',
    promptTokenIds: [9],
    tokenIds: [1],
    seed: String(2n ** 60n),
    finishReason: 'length',
    stopReason: null,
    numCachedTokens: 0,
  };
  t.same(describeOutput(one, { totalMs: 1 }), { ...common, text: 'a', timing: { totalMs: 1 } });
  t.same(describeOutput(two, {}), [
    { ...common, text: 'a', promptLogprobs: [null, logprob], timing: {} },
    { ...common, text: 'b\n', logprobs: [logprob], promptLogprobs: [null, logprob], timing: {} },
  ]);
});
