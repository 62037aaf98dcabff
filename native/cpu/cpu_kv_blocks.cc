// Prepares KV blocks before the first operator of a step: copy-on-write, and clearing of what other sequences left.
#include <cstring>

#include "cpu/cpu_model.h"

namespace nds::cpu {

// Each part copies the same byte range of every block, in list order, so that a block copied again or overwritten
// needs no synchronization. A block is one range of bytes with all its layers and heads.
void CpuModel::copy_blocks(const OpSpec&, int tid) {
  constexpr int64_t kLine = 64;
  const int64_t bytes = kv_shape_.block_stride, num_lines = (bytes + kLine - 1) / kLine;
  const int64_t begin = num_lines * tid / num_threads() * kLine;
  const int64_t last = num_lines * (tid + 1) / num_threads() * kLine, end = last < bytes ? last : bytes;
  if (begin >= end) return;
  const int64_t num_copies = pass_->block_copies.size / 2;
  for (int64_t i = 0; i < num_copies; i++) {
    const uint8_t* source = kv_.data() + pass_->block_copies[i * 2] * bytes;
    uint8_t* destination = kv_.data() + pass_->block_copies[i * 2 + 1] * bytes;
    std::memcpy(destination + begin, source + begin, static_cast<size_t>(end - begin));
  }
}

// Finds runs that this step begins but does not fill: past the new tokens they hold what another sequence left.
// Attention masks that, but 0 * NaN is NaN: a sequence whose numbers overflowed would spoil the next one.
void CpuModel::find_begun_runs() {
  const int block_size = program_.kv.block_size;
  begun_runs_.clear();
  for (const PassSequence& seq : pass_->seqs) {
    const int last_row = seq.begin + seq.num_rows - 1;
    const int first = seq.position, last = pass_->positions[last_row];
    const int run = last / kRun * kRun;
    if (run < first || last % kRun == kRun - 1) continue;
    const int64_t block = pass_->kv_slots[last_row] / block_size;
    begun_runs_.push_back(block * kv_shape_.block_stride + run % block_size / kRun * kv_shape_.run_bytes);
  }
}

void CpuModel::clear_begun_runs(int tid) {
  const int num_tiles = program_.kv.num_layers * kv_shape_.num_kv_heads;
  for (const int64_t offset : begun_runs_) {
    for (int tile = tid; tile < num_tiles; tile += num_threads()) {
      std::memset(kv_.data() + offset + tile * kv_shape_.tile_bytes, 0, static_cast<size_t>(kv_shape_.run_bytes));
    }
  }
}

}  // namespace nds::cpu
