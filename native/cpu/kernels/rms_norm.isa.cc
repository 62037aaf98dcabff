// RMS norm of whole rows, and of single heads in place.
#include "cpu/kernels/activation.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/share.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// 1 / sqrt(mean of squares + eps). Lane i sums columns i, i + 16, …; reduce_add joins the lanes.
float inverse_rms(const float* x, int width, float eps) {
  F32x16 squares = zero();
  for (int i = 0; i < width; i += 16) {
    const F32x16 v = load_n(x + i, lanes(width, i));
    squares = fma(v, v, squares);
  }
  float result[16];
  const F32x16 mean = set1(reduce_add(squares)) / set1(static_cast<float>(width));
  store(result, set1(1.0f) / sqrt(mean + set1(eps)));
  return result[0];
}

}  // namespace

void rms_norm(const RmsNormArgs& args, int tid, int num_threads) {
  const Share rows = share_of(args.rows, tid, num_threads);
  for (int64_t row = rows.begin; row < rows.end; row++) {
    const float* x = args.x + row * args.ldx;
    uint8_t* out = activation_row(args.out, args.ld_out, row, args.out_dtype);
    const F32x16 scale = set1(inverse_rms(x, args.width, args.eps));
    for (int i = 0; i < args.width; i += 16) {
      const int n = lanes(args.width, i);
      store_activation(out, i, load_n(x + i, n) * scale * load_n(args.weight + i, n), n, args.out_dtype);
    }
    zero_padding(out, args.width, args.ld_out, args.out_dtype);
  }
}

void head_norm(const HeadNormArgs& args, int tid, int num_threads) {
  const Share rows = share_of(args.rows, tid, num_threads);
  for (int64_t row = rows.begin; row < rows.end; row++) {
    for (int h = 0; h < args.num_heads; h++) {
      float* head = args.qkv + row * args.ld + args.offset + h * args.head_dim;
      const F32x16 scale = set1(inverse_rms(head, args.head_dim, args.eps));
      for (int i = 0; i < args.head_dim; i += 16) {
        const int n = lanes(args.head_dim, i);
        store_n(head + i, load_n(head + i, n) * scale * load_n(args.weight + i, n), n);
      }
    }
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
