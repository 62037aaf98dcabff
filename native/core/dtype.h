// Stored element types.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace nds {

enum class DType : int32_t { f32 = 0, bf16 = 1, f16 = 2 };

// KV cache elements: the activation dtype, int8 with one scale per token and head, or bf16 beside fp32 activations.
enum class KvDtype : int32_t { activation = 0, int8 = 1, bf16 = 2 };

inline size_t dtype_size(DType type) { return type == DType::f32 ? 4 : 2; }

// How a packed matrix is kept: in a stored type, quantized in groups of columns (packed_linear.h), …_zero with zero
// points, or as the float8_e4m3 of a checkpoint.
enum class WeightFormat : int32_t {
  f32 = 0,
  bf16 = 1,
  f16 = 2,
  int8 = 3,
  int4 = 4,
  int4_zero = 5,
  fp8 = 6,
  int8_zero = 7
};

inline bool is_int8(WeightFormat format) { return format == WeightFormat::int8 || format == WeightFormat::int8_zero; }
inline bool is_quantized(WeightFormat format) {
  return is_int8(format) || format == WeightFormat::int4 || format == WeightFormat::int4_zero;
}

// Type of the rows from which a matrix is packed: fp32 for a quantized one. Of fp8, that of its values.
inline DType row_dtype(WeightFormat format) {
  if (format == WeightFormat::fp8) return DType::bf16;
  return is_quantized(format) ? DType::f32 : static_cast<DType>(format);
}

}  // namespace nds
