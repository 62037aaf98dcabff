// Rounding sizes up to whole units.
#pragma once
#include <cstdint>

namespace nds {

// Least multiple of `unit` >= `value`.
constexpr int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace nds
