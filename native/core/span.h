// A non-owning view of contiguous elements.
#pragma once
#include <cstdint>

namespace nds {

template <typename T>
struct Span {
  const T* data = nullptr;
  int64_t size = 0;
  const T& operator[](int64_t i) const { return data[i]; }
};

}  // namespace nds
