// Operators on rows and the rotary embedding, against loops in double precision.
#include <algorithm>

#include "cuda/kernels.h"
#include "harness.h"

namespace nds::cuda::test {
namespace {

int64_t round32(int64_t value) { return (value + 31) / 32 * 32; }

// A matrix of normals with `ld` columns, the padding poisoned with NaN where `poison`.
std::vector<float> matrix(int rows, int width, int64_t ld) {
  std::vector<float> values(static_cast<size_t>(rows) * ld, 0);
  for (int r = 0; r < rows; r++) {
    for (int i = 0; i < width; i++) values[r * ld + i] = normal();
  }
  return values;
}

std::vector<float> widened(const std::vector<uint16_t>& values) {
  std::vector<float> result;
  for (const uint16_t value : values) result.push_back(from_bf16(value));
  return result;
}

}  // namespace

CUDA_TEST(embedding) {
  const int rows = any(1, 9), width = any(1, 70), num_rows = any(1, 20), first_row = any(0, 5);
  const int64_t ld = round32(width);
  std::vector<int32_t> ids;
  for (int i = 0; i < rows; i++) ids.push_back(any(0, 30));
  std::vector<uint16_t> table(static_cast<size_t>(num_rows) * ld);
  for (uint16_t& value : table) value = to_bf16(normal());
  std::vector<float> want(static_cast<size_t>(rows) * ld, 0);
  for (int r = 0; r < rows; r++) {
    const int index = ids[r] - first_row;
    for (int i = 0; i < width && index >= 0 && index < num_rows; i++)
      want[r * ld + i] = from_bf16(table[index * ld + i]);
  }
  const Device device_ids(ids);
  const Device device_table(table);
  const Device<float> out(want.size());
  nds::cuda::embedding(
      {device_ids.data, rows, device_table.data, DType::bf16, ld, first_row, num_rows, width, out.data, ld}, stream);
  expect_same("embedding", out.read(), want);
}

CUDA_TEST(rms_norm) {
  const int rows = any(1, 4), width = any(0, 1) == 0 ? any(1, 100) : any(500, 2300);
  const int64_t ld = round32(width);
  const bool has_addend = any(0, 1) == 1, is_f32 = any(0, 1) == 1;
  const std::vector<float> x = matrix(rows, width, ld), addend = matrix(rows, width, ld), weight = normals(ld);
  std::vector<float> sums = x, want(x.size(), 0);
  for (int r = 0; r < rows; r++) {
    double squares = 0;
    for (int i = 0; i < width; i++) {
      if (has_addend) sums[r * ld + i] += addend[r * ld + i];
      squares += double{sums[r * ld + i]} * sums[r * ld + i];
    }
    for (int i = 0; i < width; i++)
      want[r * ld + i] = static_cast<float>(sums[r * ld + i] / std::sqrt(squares / width + 1e-6) * weight[i]);
  }
  const Device device_x(x), device_addend(addend), device_weight(weight);
  const Device<float> out(want.size());
  const Device<uint16_t> out_bf16(want.size());
  nds::cuda::rms_norm(
      {device_x.data, ld, has_addend ? device_addend.data : nullptr, ld, device_weight.data, 1e-6f, rows, width,
       is_f32 ? static_cast<void*>(out.data) : out_bf16.data, ld, is_f32 ? DType::f32 : DType::bf16},
      stream);
  expect_near("rms_norm", is_f32 ? out.read() : widened(out_bf16.read()), want, is_f32 ? 1e-5f : 0.01f);
  expect_same("rms_norm sums", device_x.read(), sums);
}

CUDA_TEST(gather_silu_add_join) {
  const int rows = any(1, 5), width = any(1, 90);
  const int64_t ld = round32(width);
  const std::vector<float> a = matrix(rows, width, ld), b = matrix(rows, width, ld);
  const Device device_a(a), device_b(b);
  std::vector<int32_t> indices;
  std::vector<float> gathered(a.size(), 0), sums(a.size(), 0), gated(a.size(), 0);
  for (int r = 0; r < rows; r++) {
    indices.push_back(any(-1, rows - 1));
    for (int i = 0; i < width; i++) {
      const size_t at = static_cast<size_t>(r * ld + i);
      if (indices[r] >= 0) gathered[at] = a[indices[r] * ld + i];
      sums[at] = a[at] + b[at];
      gated[at] = static_cast<float>(a[at] / (1 + std::exp(-double{a[at]})) * b[at]);
    }
  }
  const Device device_indices(indices);
  const Device<float> out(a.size()), silu_out(a.size()), sum_out(std::vector<float>(a.size(), 0));
  nds::cuda::gather_rows({device_a.data, ld, device_indices.data, rows, width, 4, out.data, ld}, stream);
  expect_same("gather_rows", out.read(), gathered);
  nds::cuda::silu_mul({device_a.data, device_b.data, ld, rows, width, silu_out.data, ld, DType::f32}, stream);
  expect_near("silu_mul", silu_out.read(), gated, 1e-5f);
  nds::cuda::add({device_a.data, device_b.data, sum_out.data, ld, ld, ld, rows, width}, stream);
  expect_same("add", sum_out.read(), sums);

  // ((a + b) + a), then + bias: the stack programs 0, 1, 1.
  const std::vector<float> bias = normals(static_cast<size_t>(ld));
  const Device device_bias(bias);
  const Device<float> joined(a.size());
  JoinArgs args{};
  args.num_inputs = 3;
  args.inputs[0] = args.inputs[2] = device_a.data;
  args.inputs[1] = device_b.data;
  args.merges[1] = args.merges[2] = 1;
  args.bias = device_bias.data;
  args.width = ld;
  args.count = static_cast<int64_t>(a.size());
  args.out = joined.data;
  nds::cuda::join(args, stream);
  std::vector<float> want;
  for (size_t i = 0; i < a.size(); i++) want.push_back(((a[i] + b[i]) + a[i]) + bias[i % ld]);
  expect_same("join", joined.read(), want);
}

CUDA_TEST(rope_and_store) {
  const int head_dim = 2 * any(1, 40), group = any(1, 3), kv_heads = any(1, 3), heads = group * kv_heads,
            rows = any(1, 5);
  const int block_size = 32, num_blocks = 3;
  const int q_width = static_cast<int>(round32(heads * head_dim)),
            kv_width = static_cast<int>(round32(kv_heads * head_dim));
  const int64_t ld = q_width + 2 * kv_width;
  const bool is_int8 = any(0, 1) == 1, has_norm = any(0, 1) == 1;
  HeadLayout layout;
  layout.head_dim = head_dim;
  layout.num_heads = heads;
  layout.num_kv_heads = kv_heads;
  layout.group_size = group;
  layout.k_offset = q_width;
  layout.v_offset = q_width + kv_width;
  const std::vector<float> qkv = normals(rows * ld), q_weight = normals(head_dim), k_weight = normals(head_dim);
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
  for (int r = 0; r < rows; r++) {
    positions.push_back(any(0, 5000));
    slots.push_back(r == 1 ? -1 : r * 17);
  }
  std::vector<float> inv_freq;
  for (int i = 0; i < head_dim / 2; i++) inv_freq.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / head_dim)));
  const Device device_qkv(qkv), device_qw(q_weight), device_kw(k_weight), device_freq(inv_freq);
  const Device device_positions(positions);
  const Device device_slots(slots);
  const Device<float> cos(static_cast<size_t>(rows) * inv_freq.size()), sin(cos.size),
      q_out(static_cast<size_t>(rows) * q_width);
  rope_table({device_positions.data, rows, device_freq.data, head_dim / 2, 1.0f, cos.data, sin.data}, stream);
  KvCache kv;
  kv.is_int8 = is_int8;
  kv.num_blocks = num_blocks;
  kv.block_size = block_size;
  kv.num_kv_heads = kv_heads;
  kv.head_dim = head_dim;
  kv.tile_bytes = (2 * kv.panel_bytes() + (is_int8 ? 8 * block_size : 0) + 15) / 16 * 16;
  kv.block_stride = kv.tile_bytes * kv_heads;
  const Device<uint8_t> cache(static_cast<size_t>(kv.block_stride) * num_blocks);
  kv.base = cache.data;
  RopeAndStoreArgs args{};
  args.qkv = device_qkv.data;
  args.ld = ld;
  args.rows = rows;
  args.heads = layout;
  args.q_weight = has_norm ? device_qw.data : nullptr;
  args.k_weight = has_norm ? device_kw.data : nullptr;
  args.eps = 1e-6f;
  args.cos = cos.data;
  args.sin = sin.data;
  args.kv = kv;
  args.kv_slots = device_slots.data;
  args.q_out = q_out.data;
  args.ld_q = q_width;
  nds::cuda::rope_and_store(args, stream);

  const std::vector<float> q = q_out.read();
  const std::vector<uint8_t> bytes = cache.read();
  const auto reference = [&](int row, int offset, const std::vector<float>* weight, bool rotates) {
    std::vector<double> head;
    double squares = 0;
    for (int i = 0; i < head_dim; i++) {
      head.push_back(qkv[row * ld + offset + i]);
      squares += head[i] * head[i];
    }
    if (weight != nullptr && has_norm) {
      for (int i = 0; i < head_dim; i++) head[i] *= (*weight)[i] / std::sqrt(squares / head_dim + 1e-6);
    }
    std::vector<float> out(head.begin(), head.end());
    for (int i = 0; i < head_dim / 2 && rotates; i++) {
      const double phase = static_cast<float>(positions[row]) * inv_freq[i], a = head[i], b = head[head_dim / 2 + i];
      const double c = std::cos(static_cast<float>(phase)), s = std::sin(static_cast<float>(phase));
      out[i] = static_cast<float>(a * c - b * s);
      out[head_dim / 2 + i] = static_cast<float>(b * c + a * s);
    }
    return out;
  };
  const auto stored = [&](int row, int head, bool is_value) {
    const int64_t offset = slots[row] % block_size;
    const uint8_t* tile = bytes.data() + slots[row] / block_size * kv.block_stride + head * kv.tile_bytes;
    std::vector<float> values(head_dim);
    for (int i = 0; i < head_dim; i++) {
      const uint8_t* panel = tile + (is_value ? kv.panel_bytes() : 0);
      if (is_int8) {
        float scale;
        std::memcpy(&scale, tile + 2 * kv.panel_bytes() + ((is_value ? block_size : 0) + offset) * 4, 4);
        values[i] = static_cast<float>(static_cast<int8_t>(panel[offset * head_dim + i])) * scale;
      } else {
        std::memcpy(&values[i], panel + (offset * head_dim + i) * 4, 4);
      }
    }
    return values;
  };
  const float tolerance = is_int8 ? 0.03f : 2e-5f;
  for (int r = 0; r < rows; r++) {
    for (int h = 0; h < heads; h++) {
      const auto first = q.begin() + r * q_width + h * head_dim;
      expect_near("rotated q", {first, first + head_dim}, reference(r, h * head_dim, &q_weight, true), 2e-5f);
    }
    for (int i = heads * head_dim; i < q_width; i++) note(q[r * q_width + i] == 0, "padding of q");
    for (int h = 0; h < kv_heads && slots[r] >= 0; h++) {
      expect_near("stored k", stored(r, h, false), reference(r, layout.k_offset + h * head_dim, &k_weight, true),
                  tolerance);
      expect_near("stored v", stored(r, h, true), reference(r, layout.v_offset + h * head_dim, nullptr, false),
                  tolerance);
    }
  }
  // What no slot names stays poison.
  note(bytes[static_cast<size_t>(kv.block_stride) * num_blocks - 1] == 0xff || rows > 4, "bytes outside the slots");
}

CUDA_TEST(copy_blocks) {
  KvCache kv;
  kv.num_blocks = 4;
  kv.block_size = 32;
  kv.num_kv_heads = any(1, 2);
  kv.head_dim = 2 * any(1, 5);
  kv.tile_bytes = 2 * kv.panel_bytes();
  kv.block_stride = kv.tile_bytes * kv.num_kv_heads;
  const int num_layers = 2;
  const int64_t layer_stride = kv.block_stride * kv.num_blocks;
  std::vector<uint8_t> want(static_cast<size_t>(layer_stride) * num_layers);
  for (uint8_t& byte : want) byte = static_cast<uint8_t>(any(0, 255));
  const Device cache(want);
  kv.base = cache.data;
  const std::vector<int32_t> pairs{0, 2, 2, 3, 1, 2};  // block 2 is written, copied on, and written again
  const Device device_pairs(pairs);
  nds::cuda::copy_blocks({kv, layer_stride, num_layers, device_pairs.data, 3}, stream);
  for (int layer = 0; layer < num_layers; layer++) {
    for (size_t p = 0; p < pairs.size(); p += 2) {
      std::copy_n(want.begin() + layer * layer_stride + pairs[p] * kv.block_stride, kv.block_stride,
                  want.begin() + layer * layer_stride + pairs[p + 1] * kv.block_stride);
    }
  }
  expect_same("copy_blocks", cache.read(), want);
}

}  // namespace nds::cuda::test
