// The host's side of slots on a device: what is known of each when a plan is checked, and the memory it owns there.
#pragma once
#include <vector>

#include "core/plan_view.h"
#include "core/program.h"
#include "core/slot_bounds.h"
#include "cuda/memory.h"
#include "cuda/slots.h"

namespace nds::cuda {

// What a step does to the bounds of a sequence's slot, until its result says how many drafts were accepted.
struct PendingSlot {
  int32_t slot;
  uint64_t admission;  // which sequence the slot held
  int32_t num_drafts;
};

class CudaSlots {
 public:
  CudaSlots(const ProgramSpec& program, cudaStream_t stream);

  // Reads what the plan admits. Nothing reaches the device before upload(). @throws Error ERR_PLAN.
  void admit(const PlanView& plan);
  SlotBounds bounds(int32_t slot) const;
  const SlotParams& params(int32_t slot) const { return host_[slot].params; }
  // Bytes of pinned memory that upload() needs for the plan's admissions.
  int64_t upload_bytes(const PlanView& plan) const;
  // Loads admitted slots on the device from `pinned`, which must stay as it is until the stream has read it.
  void upload(const PlanView& plan, uint8_t* pinned);
  // After a step was queued: the bounds before its result is known.
  std::vector<PendingSlot> advance(const PlanView& plan);
  // Once it is known: drafts of a pending slot that were accepted.
  void settle(const PendingSlot& pending, int32_t num_accepted);

  DeviceSlot* device() const { return table_.as<DeviceSlot>(); }

 private:
  struct Host {
    SlotBounds bounds;
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
