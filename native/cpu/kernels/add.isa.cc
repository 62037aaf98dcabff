// out = a + b.
#include "cpu/kernels/activation.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/share.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

void add(const AddArgs& args, int tid, int num_threads) {
  const Share rows = share_of(args.rows, tid, num_threads);
  for (int64_t row = rows.begin; row < rows.end; row++) {
    const float* a = args.a + row * args.lda;
    const float* b = args.b + row * args.ldb;
    float* out = args.out + row * args.ld_out;
    for (int i = 0; i < args.width; i += 16) {
      const int n = lanes(args.width, i);
      store_n(out + i, load_n(a + i, n) + load_n(b + i, n), n);
    }
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
