// The host side of slots on a device: bounds for the check of a plan, and the device memory that each slot owns.
#pragma once
#include <deque>
#include <vector>

#include "core/plan/plan_view.h"
#include "core/plan/slot_bounds.h"
#include "core/program/program.h"
#include "cuda/memory.h"
#include "cuda/slots.h"

namespace nds::cuda {

// The effect of a step on a sequence's slot, apart from the number of accepted drafts.
struct Transition {
  int32_t slot = 0;
  uint64_t admission = 0;  // identifies the sequence that held the slot
  int32_t num_rows = 0, num_drafts = 0;
  bool samples = false;
  int32_t draft_len = 0;     // max tokens that the draft model takes in
  bool drafts_here = false;  // whether the draft model proposes the drafts in this same step
};

// Bounds after a step that accepts from `least` to `most` of its drafts.
SlotBounds after(const SlotBounds& before, const Transition& step, int32_t least, int32_t most);

class CudaSlots {
 public:
  CudaSlots(const ProgramSpec& program, cudaStream_t stream);

  // Reads what the plan admits. Nothing reaches the device before upload(). @throws Error ERR_PLAN.
  void admit(const PlanView& plan);
  SlotBounds bounds(int32_t slot) const;
  const SlotParams& params(int32_t slot) const { return host_[slot].params; }
  // Bytes of pinned memory that upload() needs for the plan's admissions.
  int64_t upload_bytes(const PlanView& plan) const;
  // Queues the upload of admitted slots through `pinned`, which must not change until the stream has read it.
  void upload(const PlanView& plan, uint8_t* pinned);
  // Records a queued step. Returns one transition per sequence of the plan.
  std::vector<Transition> advance(const PlanView& plan);
  // Records the accepted drafts of a slot's oldest step in flight. Ignored where the slot has been readmitted since.
  void settle(const Transition& step, int32_t num_accepted);

  DeviceSlot* device() const { return table_.as<DeviceSlot>(); }

 private:
  struct Host {
    SlotBounds settled;                // after all steps whose results are known
    std::deque<Transition> in_flight;  // the others, oldest first
    SlotParams params;
    std::vector<int32_t> history;  // at admission, until it is uploaded
    uint64_t admission = 0;
    DeviceMemory history_memory, counts, lists;
  };
  DeviceSlot device_slot(Host& host, std::vector<uint8_t>& lists);

  const ProgramSpec& program_;
  cudaStream_t stream_;
  SlotTable admitted_;  // scratch of admissions
  std::vector<Host> host_;
  DeviceMemory table_;
  uint64_t num_admissions_ = 0;
};

}  // namespace nds::cuda
