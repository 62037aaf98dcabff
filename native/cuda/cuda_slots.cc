// The host's side of slots on a device.
#include "cuda/cuda_slots.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/plan/admission.h"
#include "core/round_up.h"
#include "cuda/step.h"

namespace nds::cuda {
namespace {

// Bytes of a slot's lists, as device_slot lays them out: 0 for most, which need no memory and no copy then.
int64_t list_bytes(const SlotParams& p) {
  size_t count = p.allowed.size() + p.stops.size() + p.bias_ids.size() * 2;
  for (const std::vector<int32_t>& word : p.bad_words) count += word.size();
  if (!p.bad_words.empty()) count += p.bad_words.size() + 1;
  return static_cast<int64_t>(count) * 4;
}

}  // namespace

CudaSlots::CudaSlots(const ProgramSpec& program, cudaStream_t stream)
    : program_(program), stream_(stream), admitted_(program.max_num_seqs), host_(program.max_num_seqs) {
  table_ = DeviceMemory(int64_t{program.max_num_seqs} * static_cast<int64_t>(sizeof(DeviceSlot)), "slots");
  check(cudaMemsetAsync(table_.as<>(), 0, static_cast<size_t>(table_.size()), stream_), "clearing slots");
}

void CudaSlots::admit(const PlanView& plan) {
  admit_slots(plan, program_, admitted_);
  for (int64_t i = 0; i < plan.admit_slots.size; i++) {
    Slot& slot = admitted_[plan.admit_slots[i]];
    Host& host = host_[plan.admit_slots[i]];
    if (static_cast<int64_t>(slot.history.size()) > program_.max_model_len) {
      throw Error("ERR_PLAN", "Plan " + std::to_string(plan.step) + ": expected a history of at most " +
                                  std::to_string(program_.max_model_len) + " tokens but received " +
                                  std::to_string(slot.history.size()));
    }
    host.settled = bounds_of(slot);
    host.in_flight.clear();
    host.params = std::move(slot.params);
    host.history = std::move(slot.history);
    host.admission = ++num_admissions_;
    slot = Slot{};
  }
}

SlotBounds after(const SlotBounds& before, const Transition& step, int32_t least, int32_t most) {
  SlotBounds b = before;
  // The draft catches up, then takes in all of its proposals but the last.
  const int32_t proposed = step.drafts_here ? step.num_drafts - 1 : 0;
  b.least_draft_length += std::min(step.draft_len, b.least_behind) + proposed;
  b.most_draft_length += std::min(step.draft_len, b.most_behind) + proposed;
  b.least_behind = std::max(0, b.least_behind - step.draft_len);
  b.most_behind = std::max(0, b.most_behind - step.draft_len);
  b.least_length += step.num_rows - step.num_drafts + least;
  b.most_length += step.num_rows - step.num_drafts + most;
  b.has_newest_token = step.samples;
  b.has_uncertain_length |= step.num_drafts > 0;
  b.num_uncached_history = step.samples ? 1 : b.num_uncached_history - step.num_rows;
  if (!step.samples) return b;
  if (step.drafts_here) {
    // All accepted: the draft model lacks its last proposal and the newest token. Else it lacks the newest token alone.
    b.least_behind = least == step.num_drafts ? 2 : 1;
    b.most_behind = most == step.num_drafts ? 2 : 1;
  } else {
    b.least_behind += least + 1;
    b.most_behind += most + 1;
  }
  b.least_draft_length = std::min(b.least_draft_length, b.least_length);
  b.most_draft_length = std::min(b.most_draft_length, b.most_length);
  return b;
}

SlotBounds CudaSlots::bounds(int32_t slot) const {
  SlotBounds bounds = host_[slot].settled;
  for (const Transition& step : host_[slot].in_flight) bounds = after(bounds, step, 0, step.num_drafts);
  return bounds;
}

int64_t CudaSlots::upload_bytes(const PlanView& plan) const {
  int64_t bytes = 0;
  for (int64_t i = 0; i < plan.admit_slots.size; i++) {
    const Host& host = host_[plan.admit_slots[i]];
    bytes += round_up(static_cast<int64_t>(sizeof(DeviceSlot)), 64) + round_up(list_bytes(host.params), 64) +
             round_up(static_cast<int64_t>(host.history.size()) * 4, 64);
  }
  return bytes;
}

DeviceSlot CudaSlots::device_slot(Host& host, std::vector<uint8_t>& lists) {
  const SlotParams& p = host.params;
  const int64_t bytes = list_bytes(p);
  if (bytes > host.lists.size()) host.lists = DeviceMemory(round_up(bytes, 1024), "lists of sampling parameters");
  const auto add = [&](const void* from, size_t count) {
    const size_t offset = lists.size();
    lists.resize(offset + count * 4);
    if (count > 0) std::memcpy(lists.data() + offset, from, count * 4);
    return host.lists.as<>() + offset;
  };
  const auto add_ids = [&](const std::vector<int32_t>& ids) {
    return IdList{reinterpret_cast<int32_t*>(add(ids.data(), ids.size())), static_cast<int32_t>(ids.size())};
  };
  DeviceSlot slot{};
  slot.length = host.settled.least_length;
  slot.newest_token = -1;
  slot.num_history = static_cast<int32_t>(host.history.size());
  DeviceParams& d = slot.params;
  d.temperature = p.temperature;
  d.top_p = p.top_p;
  d.min_p = p.min_p;
  d.presence_penalty = p.presence_penalty;
  d.frequency_penalty = p.frequency_penalty;
  d.repetition_penalty = p.repetition_penalty;
  d.top_k = p.top_k;
  d.sample_index = p.sample_index;
  d.seed = p.seed;
  d.num_prompt_tokens = p.num_prompt_tokens;
  d.min_tokens = p.min_tokens;
  d.may_draft = p.may_draft ? 1 : 0;
  d.looks_back = p.looks_back() ? 1 : 0;
  d.keeps_history = p.keeps_history() ? 1 : 0;
  d.allowed = add_ids(p.allowed);
  d.stops = add_ids(p.stops);
  d.bias = add_ids(p.bias_ids);
  d.bias_values = reinterpret_cast<float*>(add(p.bias_values.data(), p.bias_values.size()));
  std::vector<int32_t> words, edges;
  if (!p.bad_words.empty()) edges.push_back(0);
  for (const std::vector<int32_t>& word : p.bad_words) {
    words.insert(words.end(), word.begin(), word.end());
    edges.push_back(static_cast<int32_t>(words.size()));
  }
  d.bad_words = add_ids(words);
  d.cu_bad_words = reinterpret_cast<int32_t*>(add(edges.data(), edges.size()));
  d.num_bad_words = static_cast<int32_t>(p.bad_words.size());
  if (p.keeps_history()) {
    if (host.history_memory.size() == 0)
      host.history_memory = DeviceMemory(int64_t{program_.max_model_len} * 4 + 4, "the history of a sequence");
    slot.history = host.history_memory.as<int32_t>();
  }
  if (p.looks_back()) {
    if (host.counts.size() == 0) host.counts = DeviceMemory(int64_t{program_.vocab_size} * 4, "token counts");
    slot.counts = host.counts.as<uint32_t>();
  }
  return slot;
}

void CudaSlots::upload(const PlanView& plan, uint8_t* pinned) {
  uint8_t* next = pinned;
  const auto send = [&](void* to, const void* from, int64_t bytes) {
    if (bytes == 0) return;
    std::memcpy(next, from, static_cast<size_t>(bytes));
    check(cudaMemcpyAsync(to, next, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
          "admitting a sequence");
    next += round_up(bytes, 64);
  };
  for (int64_t i = 0; i < plan.admit_slots.size; i++) {
    const int32_t id = plan.admit_slots[i];
    Host& host = host_[id];
    std::vector<uint8_t> lists;
    const DeviceSlot slot = device_slot(host, lists);
    send(device() + id, &slot, static_cast<int64_t>(sizeof(slot)));
    send(host.lists.as<>(), lists.data(), static_cast<int64_t>(lists.size()));
    if (slot.history != nullptr) send(slot.history, host.history.data(), static_cast<int64_t>(host.history.size()) * 4);
    if (slot.counts != nullptr) {
      count_history({.counts = slot.counts,
                     .vocab_size = program_.vocab_size,
                     .history = slot.history,
                     .num_history = slot.num_history,
                     .num_prompt_tokens = slot.params.num_prompt_tokens},
                    stream_);
    }
    host.history = {};
  }
}

std::vector<Transition> CudaSlots::advance(const PlanView& plan) {
  std::vector<bool> samples(static_cast<size_t>(plan.num_seqs()));
  plan.each_logit_row([&](int, int, int seq, LogitRowKind kind) {
    if (kind == LogitRowKind::sample) samples[seq] = true;
  });
  std::vector<Transition> steps;
  for (int i = 0; i < plan.num_seqs(); i++) {
    Host& host = host_[plan.slots[i]];
    Transition& step = steps.emplace_back();
    step.slot = plan.slots[i];
    step.admission = host.admission;
    step.num_rows = plan.cu_query_lens[i + 1] - plan.cu_query_lens[i];
    step.num_drafts = plan.num_drafts_of(i);
    step.samples = samples[i];
    step.draft_len = plan.draft_lens.size == 0 ? 0 : plan.draft_lens[i];
    step.drafts_here = plan.wants_draft(i);
    host.in_flight.push_back(step);
  }
  return steps;
}

void CudaSlots::settle(const Transition& step, int32_t num_accepted) {
  Host& host = host_[step.slot];
  if (host.admission != step.admission) return;
  host.settled = after(host.settled, step, num_accepted, num_accepted);
  host.in_flight.pop_front();
}

}  // namespace nds::cuda
