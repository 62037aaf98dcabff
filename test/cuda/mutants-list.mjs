/** Faults of kernels that the tests must notice. */

/**
 * In `native/cuda/kernels/<file>`, `from` stands once and becomes `to`; the tests whose names hold `test` run. `variants` are those that are
 * tried, in order: plain, asan and tsan by default.
 * @typedef {{ name: string, file: string, from: string, to: string, test: string, variants?: string[] }} Mutant
 */

/** @type {Mutant[]} */
export const mutants = [
  // ---- rows, rope ----
  {
    name: 'sum of a block: no barrier',
    file: 'block_sum.h',
    from: '  __syncthreads();\n',
    to: '',
    test: 'rms_norm',
  },
  {
    name: 'sum of a warp: wrong mask',
    file: 'block_sum.h',
    from: 'constexpr unsigned kAllLanes = 0xffffffffu;',
    to: 'constexpr unsigned kAllLanes = 0x0000ffffu;',
    test: 'rope_and_store',
  },
  {
    name: 'sum of a block: one past the shared array',
    file: 'block_sum.h',
    from: 'warp_sums[threadIdx.x / 32] = value;',
    to: 'warp_sums[threadIdx.x / 32 + 1] = value;',
    test: 'rms_norm',
  },
  {
    name: 'norm: the addend is not kept',
    file: 'rows.cu',
    from: '      reinterpret_cast<float4*>(x)[v] = value;\n',
    to: '',
    test: 'rms_norm',
  },
  {
    name: 'store of KV: slot -1 writes',
    file: 'rope.cu',
    from: '} else if (slot >= 0) {',
    to: '} else {',
    test: 'rope_and_store',
  },
  {
    name: 'maximum of a warp: shuffle in a divergent branch',
    file: 'rope.cu',
    from: 'offset /= 2) value = fmaxf',
    to: 'offset /= 2) if (threadIdx.x % 32 < 24) value = fmaxf',
    test: 'rope_and_store',
  },
  {
    name: 'copies of blocks: one too far',
    file: 'rope.cu',
    from: 'i < bytes;',
    to: 'i <= bytes;',
    test: 'copy_blocks',
  },
  // ---- products ----
  {
    name: 'few rows: no barrier before sums are joined',
    file: 'linear_few.cu',
    from: '  cudaTriggerProgrammaticLaunchCompletion();\n  __syncthreads();\n',
    to: '  cudaTriggerProgrammaticLaunchCompletion();\n',
    test: 'linear',
  },
  {
    name: 'few rows: too little shared memory',
    file: 'linear_few.cu',
    from: 'return int64_t{4} * args.w.num_chunks * matrices * tiles * 8 * kRowStride;',
    to: 'return int64_t{4} * args.w.num_chunks * matrices * tiles * 8 * kRowStride - 16;',
    test: 'linear',
  },
  {
    name: 'tiles: no wait for copies',
    file: 'linear_tiled.cu',
    from: 'simt::cp_async_wait<S::kStages - 2>();',
    to: '',
    test: 'linear',
  },
  {
    name: 'tiles: wait one group short',
    file: 'linear_tiled.cu',
    from: 'simt::cp_async_wait<S::kStages - 2>();',
    to: 'simt::cp_async_wait<S::kStages - 1>();',
    test: 'linear',
  },
  {
    name: 'tiles: no barrier after the wait',
    file: 'linear_tiled.cu',
    from: "__syncthreads();  // this step's tiles are here",
    to: "// this step's tiles are here",
    test: 'linear',
  },
  {
    name: 'tiles: no barrier before results overwrite them',
    file: 'linear_tiled.cu',
    from: '__syncthreads();  // all have read what was in the tile',
    to: '',
    test: 'linear',
  },
  {
    name: 'tiles: a misaligned copy',
    file: 'linear_tiled.cu',
    from: 'sources_[i] + run * kVectors);',
    to: 'reinterpret_cast<const char*>(sources_[i] + run * kVectors) + 8);',
    test: 'linear',
  },
  // ---- attention ----
  {
    name: 'split attention: wait for K one group short',
    file: 'attention_split.cu',
    from: 'simt::cp_async_wait<1>();\n    __syncthreads();  // K is there',
    to: 'simt::cp_async_wait<2>();\n    __syncthreads();  // K is there',
    test: 'attention_bf16',
  },
  {
    name: 'split attention: no barrier before V is refilled',
    file: 'attention_split.cu',
    from: '__syncthreads();  // V, p and sums are free',
    to: '',
    test: 'attention_bf16',
  },
  {
    name: 'split attention: a barrier in a divergent branch',
    file: 'attention_split.cu',
    from: '__syncthreads();  // maxima are there, K is free',
    to: 'if (warp > 0) __syncthreads();',
    test: 'attention_bf16',
  },
  {
    name: 'split attention: a warp returns before barriers',
    file: 'attention_split.cu',
    from: '  while (has_work) {\n',
    to: '  if (warp == 3) simt::cp_async_wait<0>();\n  if (warp == 3) return;\n  while (has_work) {\n',
    test: 'attention_bf16',
  },
  {
    name: 'split attention: too little shared memory',
    file: 'attention_split.cu',
    from: 'sizeof(float) * kWarps * kRows * 5 + 16;',
    to: 'sizeof(float) * kWarps * kRows * 5;',
    test: 'attention_bf16',
  },
  {
    name: 'split attention: V not transposed',
    file: 'attention_split_tile.h',
    from: 'simt::ldmatrix_x4_trans(b, shared.values',
    to: 'simt::ldmatrix_x4(b, shared.values',
    test: 'attention_bf16',
  },
  {
    name: 'prefill attention: no barrier after the wait',
    file: 'attention_prefill.cu',
    from: '__syncthreads();  // the segment is there, the other stage is free',
    to: '',
    test: 'attention_bf16',
  },
  {
    name: 'attention: keys past the end not zeroed',
    file: 'attention_tile.h',
    from: 'source, from >= 0);',
    to: 'source, true);',
    test: 'attention_bf16',
  },
  {
    name: 'last block: no fence before the count',
    file: 'attention_join.h',
    from: "__threadfence();  // the block's partial results before the count",
    to: '',
    test: 'attention_bf16_64',
    variants: ['tsan'],
  },
  {
    name: 'last block: no fence after the count',
    file: 'attention_join.h',
    from: "__threadfence();  // the count before the other blocks' partial results",
    to: '',
    test: 'attention_bf16_64',
    variants: ['tsan'],
  },
  {
    name: 'last block: plain store to an atomic',
    file: 'attention_join.h',
    from: 'atomicExch(counter, 0u);',
    to: '*counter = 0;',
    test: 'attention_bf16_64',
    variants: ['tsan'],
  },
  {
    name: 'last block: counter not reset',
    file: 'attention_join.h',
    from: 'if (threadIdx.x == 0) atomicExch(counter, 0u);',
    to: '',
    test: 'attention_bf16',
  },
  // ---- sampling ----
  {
    name: 'best of a block: no barrier',
    file: 'sample_best.h',
    from: '  __syncthreads();\n  best = of_warps[0];',
    to: '  best = of_warps[0];',
    test: 'tokens',
  },
  {
    name: 'tokens: of equal values the highest id',
    file: 'sample_best.h',
    from: 'other.id < best.id)) best',
    to: 'other.id > best.id)) best',
    test: 'tokens',
  },
  {
    name: 'histogram: no barrier after it is cleared',
    file: 'sample_select.h',
    from: 'sums.low[i] = sums.high[i] = 0;\n    __syncthreads();',
    to: 'sums.low[i] = sums.high[i] = 0;',
    test: 'tokens_with_filters',
  },
  {
    name: 'histogram: a sum that is no atomic',
    file: 'sample_select.h',
    from: 'const uint32_t old = atomicAdd(&low[bin], part);',
    to: 'const uint32_t old = low[bin];\n    low[bin] = old + part;',
    test: 'tokens_with_filters',
    variants: ['tsan'],
  },
];
