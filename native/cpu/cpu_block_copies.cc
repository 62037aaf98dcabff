// Copy-on-write: whole KV blocks copied before the first operator of a step.
#include <cstring>

#include "cpu/cpu_backend.h"

namespace nds::cpu {

// Every thread copies the same bytes of every block, in list order: a block that is copied again, or written over,
// needs no thread to wait for another. A block is one range of bytes with all its layers and heads.
void CpuBackend::copy_blocks(int tid) {
  constexpr int64_t kLine = 64;
  const PlanView& plan = *step_.plan;
  const int64_t bytes = kv_shape_.block_stride, num_lines = (bytes + kLine - 1) / kLine;
  const int64_t begin = num_lines * tid / num_threads() * kLine;
  const int64_t last = num_lines * (tid + 1) / num_threads() * kLine, end = last < bytes ? last : bytes;
  if (begin >= end) return;
  for (int64_t i = 0; i < plan.num_block_copies(); i++) {
    const uint8_t* source = kv_.data() + plan.block_copies[i * 2] * bytes;
    uint8_t* destination = kv_.data() + plan.block_copies[i * 2 + 1] * bytes;
    std::memcpy(destination + begin, source + begin, static_cast<size_t>(end - begin));
  }
}

}  // namespace nds::cpu
