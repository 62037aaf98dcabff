// The accept rules of speculative decoding on plain arrays: single rounds, and loops of rounds whose models are tables
// of distributions.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "addon/testing/arrays.h"

namespace nds::addon {
namespace {

// Distributions from a BigUint64Array [rows, vocabSize] of masses.
class Rows {
 public:
  Rows(const Napi::Object& options, const char* key, size_t vocab_size) {
    const auto table = as_typed_array<Napi::BigUint64Array>(member(options, key), napi_biguint64_array, key);
    const size_t num_rows = table.ElementLength() / vocab_size;
    ids_.reserve(num_rows * vocab_size);
    masses_.reserve(num_rows * vocab_size);
    for (size_t row = 0; row < num_rows; row++) {
      Distribution d{ids_.data() + ids_.size(), masses_.data() + masses_.size(), 0, 0};
      for (size_t id = 0; id < vocab_size; id++) {
        const uint64_t mass = table.Data()[row * vocab_size + id];
        if (mass == 0) continue;
        ids_.push_back(static_cast<int32_t>(id));
        masses_.push_back(mass);
        d.n++;
        d.total += mass;
      }
      rows_.push_back(d);
    }
  }

  const Distribution& at(size_t row) const {
    if (row >= rows_.size())
      throw Error("ERR_INTERNAL",
                  "Expected more than " + std::to_string(row) + " rows but received " + std::to_string(rows_.size()));
    return rows_[row];
  }
  const Distribution* first(int count) const {
    if (count > 0) at(static_cast<size_t>(count) - 1);
    return rows_.data();
  }

 private:
  std::vector<int32_t> ids_;
  std::vector<uint64_t> masses_;
  std::vector<Distribution> rows_;
};

AcceptRule get_rule(const Napi::Object& options) {
  return get_string(options, "rule") == "block" ? AcceptRule::block : AcceptRule::standard;
}

uint32_t get_uint32(const Napi::Object& options, const char* key) {
  return static_cast<uint32_t>(get_int64(options, key));
}

// draw({ masses [vocabSize], seed, position, sampleIndex, stream, round, numDraws, numThreads? })
// → Int32Array [numDraws] at positions position … position + numDraws - 1.
Napi::Value draw(Napi::Env env, const Napi::Object& options) {
  const cpu::Kernels& kernels = get_kernels(options);
  const Rows rows(options, "masses", member(options, "masses").As<Napi::TypedArray>().ElementLength());
  cpu::SampleParams address{};
  address.seed = get_uint64(options, "seed");
  address.position = get_uint32(options, "position");
  address.sample_index = get_uint32(options, "sampleIndex");
  address.stream = static_cast<NoiseStream>(get_int(options, "stream"));
  address.round = get_uint32(options, "round");
  Napi::Int32Array ids = Napi::Int32Array::New(env, static_cast<size_t>(get_int(options, "numDraws")));
  const int num_threads = get_team_size(options);
  TestScratch scratch(kernels.accept_scratch_bytes(num_threads));
  const std::vector<int32_t> drawn = run_team(num_threads, [&](const cpu::Team& team) {
    cpu::SampleParams own = address;
    std::vector<int32_t> draws;
    for (size_t i = 0; i < ids.ElementLength(); i++, own.position++)
      draws.push_back(kernels.draw(rows.at(0), own, scratch.data(), team));
    return draws;
  });
  std::copy(drawn.begin(), drawn.end(), ids.Data());
  return ids;
}

// acceptDrafts({ rule, vocabSize, drafts [K], q [K, vocabSize], p [K + 1, vocabSize], seed, position, sampleIndex,
// round, numRounds, numThreads? }) → { numAccepted, tokens }: Int32Array [numRounds] each; position and round grow by 1
// per round.
Napi::Value accept_drafts(Napi::Env env, const Napi::Object& options) {
  const cpu::Kernels& kernels = get_kernels(options);
  const size_t vocab_size = static_cast<size_t>(get_int(options, "vocabSize"));
  const Rows p(options, "p", vocab_size), q(options, "q", vocab_size);
  const std::vector<int32_t> drafts = get_ints(options, "drafts");
  const int num_drafts = static_cast<int>(drafts.size());
  const cpu::AcceptArgs args{.rule = get_rule(options),
                             .num_drafts = num_drafts,
                             .drafts = drafts.data(),
                             .q = q.first(num_drafts),
                             .p = p.first(num_drafts + 1),
                             .seed = get_uint64(options, "seed"),
                             .position = get_uint32(options, "position"),
                             .sample_index = get_uint32(options, "sampleIndex"),
                             .round = get_uint32(options, "round")};
  const size_t num_rounds = static_cast<size_t>(get_int(options, "numRounds"));
  Napi::Int32Array num_accepted = Napi::Int32Array::New(env, num_rounds);
  Napi::Int32Array tokens = Napi::Int32Array::New(env, num_rounds);
  const int num_threads = get_team_size(options);
  TestScratch scratch(kernels.accept_scratch_bytes(num_threads));
  const std::vector<std::array<int32_t, 2>> accepted = run_team(num_threads, [&](const cpu::Team& team) {
    cpu::AcceptArgs own = args;
    std::vector<std::array<int32_t, 2>> rounds;
    for (size_t i = 0; i < num_rounds; i++, own.position++, own.round++) {
      const Accepted round = kernels.accept_drafts(own, scratch.data(), team);
      rounds.push_back({round.num_accepted, round.token});
    }
    return rounds;
  });
  for (size_t i = 0; i < num_rounds; i++) {
    num_accepted[i] = accepted[i][0];
    tokens[i] = accepted[i][1];
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("numAccepted", num_accepted);
  result.Set("tokens", tokens);
  return result;
}

// A loop of rounds. The members from draft_stream on make it exact, or wrong on purpose.
struct Loop {
  const cpu::Kernels& kernels;
  AcceptRule rule;
  int vocab_size, num_drafts, num_tokens;
  uint32_t position;  // of the first token
  NoiseStream draft_stream;
  bool keyed_by_round;
  double drop_below;  // a draft whose q is below is left out, with all after it; 0 = never
  double stop_below;  // a draft whose q is below is the last; 0 = never
  const Rows &p, &drawn_from, &judged_by;

  // The context after one more token. Contexts are numbered as in a heap: a vocab_size-ary tree, level by level.
  size_t after(size_t context, int32_t token) const {
    return context * static_cast<size_t>(vocab_size) + static_cast<size_t>(token) + 1;
  }

  // Writes the num_tokens tokens that follow the empty context.
  void run(uint64_t seed, int32_t* tokens) const {
    size_t context = 0;
    for (int num = 0; num < num_tokens;) {
      std::vector<int32_t> emitted = round(seed, position + static_cast<uint32_t>(num), context);
      for (const int32_t token : emitted) {
        context = after(context, token);
        if (num < num_tokens) tokens[num++] = token;
      }
    }
  }

  std::vector<int32_t> round(uint64_t seed, uint32_t begin, size_t context) const {
    std::vector<int32_t> drafts;
    std::vector<Distribution> p_rows{p.at(context)}, q_rows;
    TestScratch scratch(kernels.accept_scratch_bytes(1));
    cpu::SampleParams address{};
    address.seed = seed;
    address.position = begin;
    address.stream = draft_stream;
    address.round = keyed_by_round ? begin : 0;
    for (int j = 0; j < num_drafts; j++, address.position++) {
      const Distribution& q = drawn_from.at(context);
      const int32_t token = kernels.draw(q, address, scratch.data(), cpu::Team{});
      double share = 0;
      for (int i = 0; i < q.n; i++)
        if (q.ids[i] == token) share = static_cast<double>(q.masses[i]) / static_cast<double>(q.total);
      if (share < drop_below) break;
      drafts.push_back(token);
      q_rows.push_back(judged_by.at(context));
      context = after(context, token);
      p_rows.push_back(p.at(context));
      if (share < stop_below) break;
    }
    const Accepted accepted = kernels.accept_drafts({.rule = rule,
                                                     .num_drafts = static_cast<int>(drafts.size()),
                                                     .drafts = drafts.data(),
                                                     .q = q_rows.data(),
                                                     .p = p_rows.data(),
                                                     .seed = seed,
                                                     .position = begin,
                                                     .sample_index = 0,
                                                     .round = address.round},
                                                    scratch.data(), cpu::Team{});
    drafts.resize(static_cast<size_t>(accepted.num_accepted));
    drafts.push_back(accepted.token);
    return drafts;
  }
};

// speculate({ rule, vocabSize, p, drawnFrom, judgedBy [contexts, vocabSize], numDrafts, numTokens, numDraws, seed,
// position, draftStream, keyedByRound, dropBelow, stopBelow }) → Int32Array [numDraws, numTokens]; draw i has the seed
// seed + i. Context 0 is empty; context c * vocabSize + token + 1 is context c followed by token.
Napi::Value speculate(Napi::Env env, const Napi::Object& options) {
  const int vocab_size = get_int(options, "vocabSize");
  const size_t width = static_cast<size_t>(vocab_size);
  const Rows p(options, "p", width), drawn_from(options, "drawnFrom", width), judged_by(options, "judgedBy", width);
  const Loop loop{get_kernels(options),
                  get_rule(options),
                  vocab_size,
                  get_int(options, "numDrafts"),
                  get_int(options, "numTokens"),
                  get_uint32(options, "position"),
                  static_cast<NoiseStream>(get_int(options, "draftStream")),
                  get_bool(options, "keyedByRound"),
                  get_double(options, "dropBelow"),
                  get_double(options, "stopBelow"),
                  p,
                  drawn_from,
                  judged_by};
  const size_t num_draws = static_cast<size_t>(get_int(options, "numDraws"));
  const size_t num_tokens = static_cast<size_t>(loop.num_tokens);
  const uint64_t seed = get_uint64(options, "seed");
  Napi::Int32Array tokens = Napi::Int32Array::New(env, num_draws * num_tokens);
  for (size_t i = 0; i < num_draws; i++) loop.run(seed + i, tokens.Data() + i * num_tokens);
  return tokens;
}

}  // namespace

void register_testing_accept(Napi::Env env, Napi::Object testing) {
  add_method(env, testing, "draw", draw);
  add_method(env, testing, "acceptDrafts", accept_drafts);
  add_method(env, testing, "speculate", speculate);
}

}  // namespace nds::addon
