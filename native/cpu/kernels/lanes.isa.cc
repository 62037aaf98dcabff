// Lane functions one at a time, for tests: the outputs of operators do not show their results.
#include "cpu/kernels/gumbel.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/philox.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

void test_map(LaneFunction function, const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; i += 16) {
    const int n = count - i < 16 ? static_cast<int>(count - i) : 16;
    const F32x16 v = load_n(x + i, n);
    switch (function) {
      case LaneFunction::exp:
        store_n(y + i, exp(v), n);
        break;
      case LaneFunction::log:
        store_n(y + i, log(v), n);
        break;
      case LaneFunction::gumbel:
        store_n(y + i, gumbel(as_i32(v)), n);
        break;
    }
  }
}

void test_philox(const uint32_t counter[4], uint64_t key, uint32_t words[4]) {
  I32x16 counters[4], results[4];
  for (int i = 0; i < 4; i++) counters[i] = set1_i32(static_cast<int32_t>(counter[i]));
  philox(counters, key, results);
  for (int i = 0; i < 4; i++) {
    int32_t lanes[16];
    store_i32(lanes, results[i]);
    words[i] = static_cast<uint32_t>(lanes[15]);
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
