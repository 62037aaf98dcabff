// Sampling and its random numbers on plain arrays.
#include <algorithm>
#include <utility>
#include <vector>

#include "addon/testing/arrays.h"
#include "step/process_logits.h"

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
  if (options.Has("stream")) params.stream = static_cast<NoiseStream>(get_int(options, "stream"));
  if (options.Has("round")) params.round = static_cast<uint32_t>(get_int64(options, "round"));
  return params;
}

// sample({ logits, firstId, temperature, topP, minP, topK, seed, position, sampleIndex, stream?, round?, numDraws,
// filtered, numThreads? }), where filtered rows are divided among the threads
// → { ids: Int32Array [numDraws], values: Float32Array [numDraws] } at positions position … position + numDraws - 1.
Napi::Value sample(Napi::Env env, const Napi::Object& options) {
  const cpu::Kernels& kernels = get_kernels(options);
  const int n = static_cast<int>(member(options, "logits").As<Napi::TypedArray>().ElementLength());
  const float* logits = get_floats(options, "logits", n).Data();
  const bool filtered = get_bool(options, "filtered");
  const int first_id = get_int(options, "firstId"), num_draws = get_int(options, "numDraws");
  cpu::SampleParams params = get_params(options);
  const int num_threads = get_team_size(options);
  TestScratch scratch(kernels.filter_scratch_bytes(n, num_threads));
  Napi::Int32Array ids = Napi::Int32Array::New(env, static_cast<size_t>(num_draws));
  Napi::Float32Array values = Napi::Float32Array::New(env, static_cast<size_t>(num_draws));
  const auto keep = [&](int i, int32_t id, float value) {
    ids[static_cast<size_t>(i)] = id;
    values[static_cast<size_t>(i)] = value;
  };
  if (!filtered) {
    for (int i = 0; i < num_draws; i++, params.position++) {
      const cpu::Candidate drawn = kernels.sample_row(logits, n, first_id, params);
      keep(i, drawn.id, drawn.value);
    }
  } else {
    const std::vector<std::pair<int32_t, float>> best = run_team(num_threads, [&](const cpu::Team& team) {
      cpu::SampleParams own = params;
      std::vector<std::pair<int32_t, float>> draws;
      for (int i = 0; i < num_draws; i++, own.position++) {
        const cpu::Candidate drawn = kernels.sample_filtered_row(logits, n, own, scratch.data(), team);
        draws.emplace_back(drawn.id, drawn.value);
      }
      return draws;
    });
    for (int i = 0; i < num_draws; i++)
      keep(i, best[static_cast<size_t>(i)].first, best[static_cast<size_t>(i)].second);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("ids", ids);
  result.Set("values", values);
  return result;
}

// distribution({ logits, temperature, topP, minP, topK, seed, position, sampleIndex, numThreads? })
// → BigUint64Array [vocabSize] of masses, 0 for ids that are filtered out.
Napi::Value distribution(Napi::Env env, const Napi::Object& options) {
  const cpu::Kernels& kernels = get_kernels(options);
  const size_t n = member(options, "logits").As<Napi::TypedArray>().ElementLength();
  const float* logits = get_floats(options, "logits", static_cast<int64_t>(n)).Data();
  const int num_threads = get_team_size(options);
  TestScratch scratch(kernels.filter_scratch_bytes(static_cast<int>(n), num_threads));
  std::vector<int32_t> ids(n);
  std::vector<uint64_t> masses(n);
  const cpu::SampleParams params = get_params(options);
  const auto [num_left, mass_left] = run_team(num_threads, [&](const cpu::Team& team) {
    const Distribution left =
        kernels.distribution(logits, static_cast<int>(n), params, scratch.data(), ids.data(), masses.data(), team);
    return std::pair(left.n, left.total);
  });
  Napi::BigUint64Array result = Napi::BigUint64Array::New(env, n);
  uint64_t total = 0;
  for (size_t i = 0; i < static_cast<size_t>(num_left); i++) {
    if (masses[i] == 0 || (i > 0 && ids[i] <= ids[i - 1]))
      throw Error("ERR_INTERNAL", "Expected masses above 0 by ascending id");
    result[static_cast<size_t>(ids[i])] = masses[i];
    total += masses[i];
  }
  if (total != mass_left) throw Error("ERR_INTERNAL", "Expected the total to be the sum of the masses");
  return result;
}

Slot get_slot(Napi::Env env, const Napi::Object& options) {
  Slot slot;
  SlotParams& p = slot.params;
  p.presence_penalty = get_float(options, "presencePenalty");
  p.frequency_penalty = get_float(options, "frequencyPenalty");
  p.repetition_penalty = get_float(options, "repetitionPenalty");
  p.num_prompt_tokens = get_int(options, "numPromptTokens");
  p.min_tokens = get_int(options, "minTokens");
  p.bias_ids = get_ints(options, "biasIds");
  const int64_t num_biases = static_cast<int64_t>(p.bias_ids.size());
  const float* biases = get_floats(options, "biasValues", num_biases).Data();
  p.bias_values.assign(biases, biases + num_biases);
  p.allowed = get_ints(options, "allowed");
  p.stops = get_ints(options, "stops");
  const Napi::Array words = get_array(options, "badWords");
  for (uint32_t i = 0; i < words.Length(); i++) {
    Napi::Object word = Napi::Object::New(env);
    word.Set("word", words.Get(i));
    p.bad_words.push_back(get_ints(word, "word"));
  }
  slot.history = get_ints(options, "history");
  slot.counts = TokenCounts(slot.history, p.num_prompt_tokens);
  return slot;
}

// processLogits({ logits, firstId, numOutput, history, drafts, numPromptTokens, presencePenalty, frequencyPenalty,
// repetitionPenalty, minTokens, biasIds, biasValues, allowed, stops, badWords: Int32Array[] }) → Float32Array of the
// same length; the logits unchanged when no parameter edits them.
Napi::Value process_logits(Napi::Env env, const Napi::Object& options) {
  const size_t n = member(options, "logits").As<Napi::TypedArray>().ElementLength();
  const float* logits = get_floats(options, "logits", static_cast<int64_t>(n)).Data();
  const Slot slot = get_slot(env, options);
  const int num_output = get_int(options, "numOutput");
  const std::vector<int32_t> drafts = get_ints(options, "drafts");
  Napi::Float32Array out = Napi::Float32Array::New(env, n);
  if (slot.params.edits_logits(num_output)) {
    nds::process_logits(logits, get_int(options, "firstId"), static_cast<int>(n), slot,
                        {drafts.data(), static_cast<int64_t>(drafts.size())}, num_output, out.Data());
  } else {
    std::copy_n(logits, n, out.Data());
  }
  return out;
}

// logProbabilities({ logits, numDrawable, token, numLikeliest }) → { ids, logprobs, rank }.
Napi::Value log_probabilities(Napi::Env env, const Napi::Object& options) {
  const int64_t n = static_cast<int64_t>(member(options, "logits").As<Napi::TypedArray>().ElementLength());
  const int num_likeliest = get_int(options, "numLikeliest");
  Napi::Int32Array ids = Napi::Int32Array::New(env, static_cast<size_t>(num_likeliest) + 1);
  Napi::Float32Array logprobs = Napi::Float32Array::New(env, static_cast<size_t>(num_likeliest) + 1);
  const int32_t rank = get_kernels(options).log_probabilities({.logits = get_floats(options, "logits", n).Data(),
                                                               .vocab_size = static_cast<int>(n),
                                                               .num_drawable = get_int(options, "numDrawable"),
                                                               .token = get_int(options, "token"),
                                                               .num_likeliest = num_likeliest,
                                                               .ids = ids.Data(),
                                                               .logprobs = logprobs.Data()});
  Napi::Object result = Napi::Object::New(env);
  result.Set("ids", ids);
  result.Set("logprobs", logprobs);
  result.Set("rank", rank);
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
  add_method(env, testing, "distribution", distribution);
  add_method(env, testing, "processLogits", process_logits);
  add_method(env, testing, "logProbabilities", log_probabilities);
  add_method(env, testing, "philox", philox);
}

}  // namespace nds::addon
