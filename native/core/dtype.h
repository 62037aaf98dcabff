// Stored element types.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace nds {

enum class DType : int32_t { f32 = 0, bf16 = 1, f16 = 2 };

// KV cache elements: the activation dtype, or int8 with one scale per token and head.
enum class KvDtype : int32_t { activation = 0, int8 = 1 };

inline size_t dtype_size(DType type) { return type == DType::f32 ? 4 : 2; }

}  // namespace nds
