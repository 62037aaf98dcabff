// out = silu(gate) * up, with silu(x) = x / (1 + exp(-x)).
#include "cpu/kernels/activation.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/share.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

void silu_mul(const SiluMulArgs& args, int tid, int num_threads) {
  const Share rows = share_of(args.rows, tid, num_threads);
  for (int64_t row = rows.begin; row < rows.end; row++) {
    const float* gate = args.gate + row * args.ld;
    const float* up = args.up + row * args.ld;
    uint8_t* out = activation_row(args.out, args.ld_out, row, args.out_dtype);
    for (int i = 0; i < args.width; i += 16) {
      const int n = lanes(args.width, i);
      const F32x16 x = load_n(gate + i, n);
      const F32x16 silu = x / (set1(1.0f) + exp(zero() - x));
      store_activation(out, i, silu * load_n(up + i, n), n, args.out_dtype);
    }
    zero_padding(out, args.width, args.ld_out, args.out_dtype);
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
