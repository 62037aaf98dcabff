// Contiguous shares of rows for the threads of a row-wise operator. Such operators follow each other without barriers,
// which is right only because all divide rows alike.
#pragma once
#include <cstdint>

namespace nds::cpu::NDS_ISA_NAMESPACE {

struct Share {
  int64_t begin, end;
};
inline Share share_of(int64_t count, int tid, int num_threads) {
  return {count * tid / num_threads, count * (tid + 1) / num_threads};
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
