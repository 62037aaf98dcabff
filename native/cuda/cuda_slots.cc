// The host's side of slots on a device.
#include "cuda/cuda_slots.h"

#include <cstring>

#include "core/admission.h"
#include "core/error.h"
#include "cuda/sampler.h"
#include "cuda/step.h"

namespace nds::cuda {
namespace {

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Bytes of a slot's lists, as device_slot lays them out.
int64_t list_bytes(const SlotParams& p) {
  size_t count = p.allowed.size() + p.stops.size() + p.bias_ids.size() * 2 + p.bad_words.size() + 1;
  for (const std::vector<int32_t>& word : p.bad_words) count += word.size();
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
    if (slot.params.num_logprobs > kMaxLikeliest || slot.params.num_prompt_logprobs > kMaxLikeliest)
      throw Error("ERR_UNSUPPORTED",
                  "Expected at most " + std::to_string(kMaxLikeliest) + " log-probabilities on CUDA");
    host.bounds = bounds_of(slot);
    host.params = std::move(slot.params);
    host.history = std::move(slot.history);
    host.admission = ++num_admissions_;
    slot = Slot{};
  }
}

SlotBounds CudaSlots::bounds(int32_t slot) const { return host_[slot].bounds; }

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
  slot.length = host.bounds.least_length;
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
  d.num_logprobs = p.num_logprobs;
  d.num_prompt_logprobs = p.num_prompt_logprobs;
  d.may_draft = p.may_draft ? 1 : 0;
  d.looks_back = p.looks_back() ? 1 : 0;
  d.keeps_history = p.keeps_history() ? 1 : 0;
  d.allowed = add_ids(p.allowed);
  d.stops = add_ids(p.stops);
  d.bias = add_ids(p.bias_ids);
  d.bias_values = reinterpret_cast<float*>(add(p.bias_values.data(), p.bias_values.size()));
  std::vector<int32_t> words, edges{0};
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
      count_history({slot.counts, program_.vocab_size, slot.history, slot.num_history, slot.params.num_prompt_tokens},
                    stream_);
    }
    host.history = {};
  }
}

std::vector<PendingSlot> CudaSlots::advance(const PlanView& plan) {
  std::vector<bool> samples(static_cast<size_t>(plan.num_seqs()));
  int seq = 0;
  for (int64_t i = 0; i < plan.logit_rows.size; i++) {
    while (plan.logit_rows[i] >= plan.cu_query_lens[seq + 1]) seq++;
    if (plan.logit_row_kinds[i] == static_cast<int32_t>(LogitRowKind::sample)) samples[seq] = true;
  }
  std::vector<PendingSlot> pending;
  for (int i = 0; i < plan.num_seqs(); i++) {
    Host& host = host_[plan.slots[i]];
    SlotBounds& b = host.bounds;
    const int32_t num_rows = plan.cu_query_lens[i + 1] - plan.cu_query_lens[i], num_drafts = plan.num_drafts_of(i);
    b.least_length += num_rows - num_drafts;
    b.most_length += num_rows;
    b.has_newest_token = samples[i];
    b.has_uncertain_length |= num_drafts > 0;
    b.num_uncached_history = samples[i] ? 1 : b.num_uncached_history - num_rows;
    pending.push_back({plan.slots[i], host.admission, num_drafts});
  }
  return pending;
}

void CudaSlots::settle(const PendingSlot& pending, int32_t num_accepted) {
  Host& host = host_[pending.slot];
  if (host.admission != pending.admission) return;
  host.bounds.least_length += num_accepted;
  host.bounds.most_length -= pending.num_drafts - num_accepted;
}

}  // namespace nds::cuda
