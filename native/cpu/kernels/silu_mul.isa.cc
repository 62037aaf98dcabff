// out = silu(gate) * up.
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/share.h"
#include "cpu/kernels/silu.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {

void silu_mul(const SiluMulArgs& args, int tid, int num_threads) {
  const Share rows = share_of(args.rows, tid, num_threads);
  for (int64_t row = rows.begin; row < rows.end; row++) {
    uint8_t* out = activation_row(args.out, args.ld_out, row, args.out_dtype);
    silu_mul_columns(args.gate + row * args.ld, args.up + row * args.ld, args.width, out, 0, args.out_dtype);
    zero_padding(out, args.width, args.ld_out, args.out_dtype);
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
