// Arg-max over values taken sixteen at a time.
#pragma once
#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Running best of each lane. Of equal values the first is kept, so ids must ascend from call to call. NaN and -inf are
// never taken.
class BestCandidate {
 public:
  // Takes the first n lanes.
  void take(F32x16 values, I32x16 ids, int n) {
    const Mask16 better = lt(values_, values) & first_n(n);
    values_ = select(better, values, values_);
    ids_ = select(better, ids, ids_);
  }

  // {-inf, -1} when nothing was taken.
  Candidate result() const {
    float values[16];
    int32_t ids[16];
    store(values, values_);
    store_i32(ids, ids_);
    Candidate best{-__builtin_inff(), -1};
    for (int i = 0; i < 16; i++) {
      if (ids[i] < 0) continue;
      if (values[i] > best.value || (values[i] == best.value && ids[i] < best.id)) best = {values[i], ids[i]};
    }
    return best;
  }

 private:
  F32x16 values_ = set1(-__builtin_inff());
  I32x16 ids_ = set1_i32(-1);
};

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
