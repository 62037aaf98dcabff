/** The option `speculativeConfig`: refusals by name, and defaults. */
import t from 'tap';
import { checkSpeculativeConfig, resolveSpeculativeConfig, type SpeculativeConfig } from '../../../rank/speculative/config.ts';

t.test('fields that are unknown, of a wrong type or out of range are refused by name', async (t) => {
  const wrong: Record<keyof SpeculativeConfig, unknown[]> = {
    method: ['eagle', '', 7, null, [], ['ngram', 'ngram'], ['ngram', 'medusa'], [['ngram']]],
    model: ['', 7, null, ['folder']],
    quantization: ['int2', '', 8, true, null],
    numSpeculativeTokens: [0, -1, 33, 1.5, '5', null, Number.NaN],
    adaptiveK: [0, 'true', null],
    rejectionSampleMethod: ['strict', '', 1, null],
    draftSampleMethod: ['gumbel', true, null],
    draftTensorParallelSize: [0, 1.5, '2', null],
    promptLookupMin: [0, -1, 1.5, '2', 1001, null],
    promptLookupMax: [0, 1001, '5', null],
    suffixDecodingMaxTreeDepth: [1, 1001, 2.5, null],
    suffixDecodingMaxSpecFactor: [0, -1, Number.POSITIVE_INFINITY, Number.NaN, '1', null],
    suffixDecodingMinTokenProb: [-0.1, 1.1, Number.NaN, '0', null],
    suffixDecodingMaxCachedRequests: [-1, 0.5, 2 ** 31, null],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const refusal = { code: 'ERR_USAGE', message: new RegExp(`^Expected .* for speculativeConfig\\.${name} but received `) };
      t.throws(() => checkSpeculativeConfig({ [name]: value }), refusal, `${name}: ${String(value)}`);
    }
    t.same(checkSpeculativeConfig({ [name]: undefined }), { [name]: undefined }, `${name} may be left open`);
  }
  const unknown = {
    code: 'ERR_USAGE',
    message: /Expected the field of speculativeConfig numSpeculativeTokens, in camel case, but received 'num_speculative_tokens'/,
  };
  t.throws(() => checkSpeculativeConfig({ num_speculative_tokens: 5 }), unknown);
  t.throws(() => checkSpeculativeConfig({ toString: 5 }), { code: 'ERR_USAGE', message: /'toString'/ });
  for (const value of [null, 7, 'ngram', ['ngram']]) {
    t.throws(() => checkSpeculativeConfig(value), { code: 'ERR_USAGE', message: /an object for speculativeConfig/ });
  }
});

t.test('the ends of ranges are taken', async (t) => {
  const configs: readonly SpeculativeConfig[] = [
    { numSpeculativeTokens: 1, suffixDecodingMinTokenProb: 0, suffixDecodingMaxCachedRequests: 0, suffixDecodingMaxTreeDepth: 2 },
    { numSpeculativeTokens: 32, suffixDecodingMinTokenProb: 1, promptLookupMin: 1000, promptLookupMax: 1000, adaptiveK: false },
    { method: ['suffix', 'draft_model', 'ngram'], model: 'folder', draftTensorParallelSize: 4, draftSampleMethod: 'greedy' },
  ];
  for (const config of configs) t.same(checkSpeculativeConfig(config), config);
});

t.test('what is left open is settled', async (t) => {
  t.match(resolveSpeculativeConfig({ model: 'folder' }, 1, 'none'), {
    methods: ['draft_model'],
    model: 'folder',
    numSpeculativeTokens: 5,
    adaptiveK: true,
    rejectionSampleMethod: 'coupled',
    draftSampleMethod: 'probabilistic',
    draftTensorParallelSize: 1,
  });
  t.equal(resolveSpeculativeConfig({ model: 'folder' }, 1, 'int4').quantization, 'int4', "the target's");
  t.equal(resolveSpeculativeConfig({ model: 'folder', quantization: 'int8' }, 1, 'none').quantization, 'int8');
  t.match(resolveSpeculativeConfig({ method: 'suffix' }, 4, 'none'), { methods: ['suffix'], model: null });
  t.same(resolveSpeculativeConfig({ method: ['ngram', 'draft_model'], model: 'folder' }, 1, 'none').methods, ['ngram', 'draft_model']);
  const lengths: readonly (readonly [SpeculativeConfig, shortest: number, longest: number])[] = [
    [{}, 2, 5],
    [{ promptLookupMax: 1 }, 1, 1],
    [{ promptLookupMax: 9 }, 2, 9],
    [{ promptLookupMin: 3 }, 3, 5],
    [{ promptLookupMin: 8 }, 8, 8],
    [{ promptLookupMin: 4, promptLookupMax: 4 }, 4, 4],
  ];
  for (const [config, promptLookupMin, promptLookupMax] of lengths) {
    t.match(
      resolveSpeculativeConfig({ method: 'ngram', ...config }, 1, 'none'),
      { promptLookupMin, promptLookupMax },
      JSON.stringify(config),
    );
  }
});

t.test('fields that do not fit together, or not the ranks', async (t) => {
  const wrong: readonly (readonly [SpeculativeConfig, worldSize: number, RegExp])[] = [
    [{}, 1, /for speculativeConfig\.method but received undefined/],
    [{ numSpeculativeTokens: 3 }, 1, /for speculativeConfig\.method but received undefined/],
    [{ method: 'draft_model' }, 1, /a folder for 'draft_model' for speculativeConfig\.model/],
    [{ method: ['ngram', 'draft_model'] }, 1, /speculativeConfig\.model/],
    [{ method: 'ngram', quantization: 'none' }, 1, /none without a model for speculativeConfig\.quantization but received "none"/],
    [{ method: 'ngram', model: 'folder' }, 1, /none without 'draft_model' for speculativeConfig\.model but received "folder"/],
    [
      { method: 'ngram', promptLookupMin: 4, promptLookupMax: 3 },
      1,
      /at most promptLookupMax = 3 for speculativeConfig\.promptLookupMin but received 4/,
    ],
    [{ model: 'folder', draftTensorParallelSize: 2 }, 1, /Expected 1 for speculativeConfig\.draftTensorParallelSize but received 2/],
    [{ model: 'folder', draftTensorParallelSize: 2 }, 4, /Expected 1 or 4, the number of ranks, .*draftTensorParallelSize but received 2/],
  ];
  for (const [config, worldSize, message] of wrong) {
    t.throws(() => resolveSpeculativeConfig(config, worldSize, 'none'), { code: 'ERR_USAGE', message }, String(message));
  }
  for (const size of [1, 4]) {
    const { draftTensorParallelSize } = resolveSpeculativeConfig({ model: 'folder', draftTensorParallelSize: size }, 4, 'none');
    t.equal(draftTensorParallelSize, size);
  }
});
