// Sampling and its random numbers on plain arrays.
#include <vector>

#include "addon/testing_arrays.h"

namespace nds::addon {
namespace {

cpu::SampleParams get_params(const Napi::Object& options) {
  cpu::SampleParams params;
  params.temperature = get_float(options, "temperature");
  params.top_p = get_float(options, "topP");
  params.min_p = get_float(options, "minP");
  params.top_k = get_int(options, "topK");
  params.seed = get_uint64(options, "seed");
  params.position = static_cast<uint32_t>(get_int64(options, "position"));
  params.sample_index = static_cast<uint32_t>(get_int64(options, "sampleIndex"));
  return params;
}

// sample({ logits, firstId, temperature, topP, minP, topK, seed, position, sampleIndex, numDraws, filtered })
// → { ids: Int32Array [numDraws], values: Float32Array [numDraws] } at positions position … position + numDraws - 1.
Napi::Value sample(Napi::Env env, const Napi::Object& options) {
  const cpu::Kernels& kernels = get_kernels(options);
  const int n = static_cast<int>(member(options, "logits").As<Napi::TypedArray>().ElementLength());
  const float* logits = get_floats(options, "logits", n).Data();
  const bool filtered = get_bool(options, "filtered");
  const int first_id = get_int(options, "firstId"), num_draws = get_int(options, "numDraws");
  cpu::SampleParams params = get_params(options);
  std::vector<uint8_t> scratch(static_cast<size_t>(kernels.filter_scratch_bytes(n)), 0xff);
  Napi::Int32Array ids = Napi::Int32Array::New(env, static_cast<size_t>(num_draws));
  Napi::Float32Array values = Napi::Float32Array::New(env, static_cast<size_t>(num_draws));
  for (int i = 0; i < num_draws; i++, params.position++) {
    const cpu::Candidate best = filtered ? kernels.sample_filtered_row(logits, n, params, scratch.data())
                                         : kernels.sample_row(logits, n, first_id, params);
    ids[i] = best.id;
    values[i] = best.value;
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("ids", ids);
  result.Set("values", values);
  return result;
}

// philox({ counter: Int32Array [4], key: bigint }) → Uint32Array [4].
Napi::Value philox(Napi::Env env, const Napi::Object& options) {
  const std::vector<int32_t> signed_counter = get_ints(options, "counter");
  const std::vector<uint32_t> counter(signed_counter.begin(), signed_counter.end());
  if (counter.size() != 4) throw Error("ERR_INTERNAL", "Expected property counter to be four words");
  Napi::Uint32Array words = Napi::Uint32Array::New(env, 4);
  get_kernels(options).test_philox(counter.data(), get_uint64(options, "key"), words.Data());
  return words;
}

}  // namespace

void register_testing_sampling(Napi::Env env, Napi::Object testing) {
  add_method(env, testing, "sample", sample);
  add_method(env, testing, "philox", philox);
}

}  // namespace nds::addon
