// Rotary embedding: cos and sin of a step's positions, q rotated for attention, k rotated and stored with v in the
// cache.
#include "cpu/kernels/activation.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/kv_int8.h"
#include "cpu/kernels/kv_panel.h"
#include "cpu/kernels/share.h"
#include "cpu/kernels/simd.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// sin and cos of x >= 0 in double precision: x = q * pi / 2 + r by three parts of pi / 2 (the first two products are
// exact for q < 2^20), then Taylor polynomials on |r| <= pi / 4, whose first omitted term is below 2^-54.
void sin_cos(double x, double& sin, double& cos) {
  const double q = static_cast<double>(static_cast<int64_t>(x * 0.63661977236758138 + 0.5));
  const double r = ((x - q * 1.57079632673412561417) - q * 6.07710050630396597660e-11) - q * 2.02226624879595063154e-21;
  const double z = r * r;
  double s = -1.0 / 1307674368000;
  s = s * z + 1.0 / 6227020800;
  s = s * z - 1.0 / 39916800;
  s = s * z + 1.0 / 362880;
  s = s * z - 1.0 / 5040;
  s = s * z + 1.0 / 120;
  s = s * z - 1.0 / 6;
  s = r + r * (z * s);
  double c = 1.0 / 20922789888000;
  c = c * z - 1.0 / 87178291200;
  c = c * z + 1.0 / 479001600;
  c = c * z - 1.0 / 3628800;
  c = c * z + 1.0 / 40320;
  c = c * z - 1.0 / 720;
  c = c * z + 1.0 / 24;
  c = 1.0 - z * 0.5 + z * z * c;
  const int64_t quadrant = static_cast<int64_t>(q) & 3;
  sin = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;
  cos = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
}

// Rotates one head [2 * half]: pairs are (i, i + half).
void rotate(const float* head, const float* cos, const float* sin, int half, float* out) {
  for (int i = 0; i < half; i += 16) {
    const int n = lanes(half, i);
    const F32x16 c = load_n(cos + i, n), s = load_n(sin + i, n);
    const F32x16 a = load_n(head + i, n), b = load_n(head + half + i, n);
    store_n(out + i, a * c - b * s, n);
    store_n(out + half + i, b * c + a * s, n);
  }
}

// rope_and_store of one step on one thread.
class Rotation {
 public:
  explicit Rotation(const RopeAndStoreArgs& args) : args_(args), half_(args.kv.head_dim / 2) {}

  void store_q(int64_t row) {
    const int head_dim = args_.kv.head_dim;
    const DType dtype = args_.kv.dtype;
    uint8_t* out = activation_row(args_.q_out, args_.ld_q, row, dtype);
    const float scale =
        args_.query_scales == nullptr ? 1 : args_.query_scales[args_.positions[row] / args_.query_length];
    for (int h = 0; h < args_.num_heads; h++) {
      rotate_head(row, args_.q_offset, h, rotated_[0]);
      for (int i = 0; i < head_dim; i += 16) {
        const int n = lanes(head_dim, i);
        store_activation(out, int64_t{h} * head_dim + i, load_n(rotated_[0] + i, n) * set1(scale), n, dtype);
      }
    }
    zero_padding(out, int64_t{args_.num_heads} * head_dim, args_.ld_q, dtype);
  }

  void store_kv(int64_t row) {
    for (int h = 0; h < args_.kv.num_kv_heads; h++) {
      const KeyValue token = key_value(row, h, rotated_[0]);
      if (args_.kv.kv_dtype == KvDtype::int8) {
        store_int8_kv(args_.kv, args_.kv_slots[row], h, token);
      } else if (is_bf16(args_.kv)) {
        store_bf16_kv(args_.kv, args_.kv_slots[row], h, token);
      } else {
        store_f32_kv(args_.kv, args_.kv_slots[row], h, token);
      }
    }
  }

  // Whether a row and the next share a row of the V panel, so that they may be stored together.
  bool is_pair(int64_t row) const {
    return is_bf16(args_.kv) && args_.kv_slots[row] % 2 == 0 && args_.kv_slots[row + 1] == args_.kv_slots[row] + 1;
  }
  void store_kv_pair(int64_t row) {
    for (int h = 0; h < args_.kv.num_kv_heads; h++) {
      const KeyValue even = key_value(row, h, rotated_[0]), odd = key_value(row + 1, h, rotated_[1]);
      store_bf16_kv_pair(args_.kv, args_.kv_slots[row], h, even, odd);
    }
  }

 private:
  void rotate_head(int64_t row, int offset, int head, float* out) const {
    const float* x = args_.qkv + row * args_.ld + offset + int64_t{head} * args_.kv.head_dim;
    rotate(x, args_.cos + row * half_, args_.sin + row * half_, half_, out);
  }
  KeyValue key_value(int64_t row, int head, float* rotated) const {
    rotate_head(row, args_.k_offset, head, rotated);
    return {rotated, args_.qkv + row * args_.ld + args_.v_offset + int64_t{head} * args_.kv.head_dim};
  }

  const RopeAndStoreArgs& args_;
  const int half_;
  float rotated_[2][kMaxHeadDim];
};

}  // namespace

void rope_table(const RopeTableArgs& args, int tid, int num_threads) {
  const Share rows = share_of(args.rows, tid, num_threads);
  for (int64_t row = rows.begin; row < rows.end; row++) {
    const float position = static_cast<float>(args.positions[row]);
    for (int i = 0; i < args.half_dim; i++) {
      const float phase = position * args.inv_freq[i];
      double s, c;
      sin_cos(phase, s, c);
      args.cos[row * args.half_dim + i] = static_cast<float>(c) * args.scale;
      args.sin[row * args.half_dim + i] = static_cast<float>(s) * args.scale;
    }
  }
}

void rope_and_store(const RopeAndStoreArgs& args, int tid, int num_threads) {
  const Share rows = share_of(args.rows, tid, num_threads);
  Rotation rotation(args);
  for (int64_t row = rows.begin; row < rows.end; row++) {
    rotation.store_q(row);
    if (row + 1 < rows.end && rotation.is_pair(row)) {
      rotation.store_kv_pair(row);
      rotation.store_q(++row);
    } else {
      rotation.store_kv(row);
    }
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
