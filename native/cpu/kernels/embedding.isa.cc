// Embedding rows that this rank owns, widened to fp32.
#include <cstring>

#include "cpu/kernels/activation.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/share.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// Elements of a checkpoint file need not be aligned.
F32x16 load_stored(const uint8_t* row, int64_t column, int n, DType dtype) {
  if (dtype == DType::f32) {
    float values[16];
    std::memcpy(values, row + column * 4, static_cast<size_t>(n) * 4);
    return load_n(values, n);
  }
  uint16_t halves[16];
  std::memcpy(halves, row + column * 2, static_cast<size_t>(n) * 2);
  return dtype == DType::bf16 ? load_bf16_n(halves, n) : load_f16_n(halves, n);
}

}  // namespace

void embedding(const EmbeddingArgs& args, int tid, int num_threads) {
  const Share rows = share_of(args.rows, tid, num_threads);
  const int64_t size = args.table_dtype == DType::f32 ? 4 : 2;
  for (int64_t i = rows.begin; i < rows.end; i++) {
    const int64_t index = int64_t{args.token_ids[i]} - args.first_row;
    if (index < 0 || index >= args.num_rows) continue;
    const uint8_t* row = args.table + index * args.table_ld * size;
    float* out = args.out + i * args.ld_out;
    for (int j = 0; j < args.width; j += 16) {
      const int n = lanes(args.width, j);
      store_n(out + j, load_stored(row, j, n, args.table_dtype), n);
    }
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
