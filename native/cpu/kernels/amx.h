// Tile registers of AMX: eight of 16 rows of 64 bytes. By assembly, since the intrinsics of g++ 12 tell the compiler
// neither that a configuration is read nor that memory is.
#pragma once
#include <cstdint>

namespace nds::cpu::NDS_ISA_NAMESPACE {

// Roles of the registers: a block of up to 32 rows by 32 columns has four of sums, at 2 * (row / 16) + column / 16,
// which two of rows and two of columns multiply.
constexpr int kAmxRows = 16;
constexpr int kAmxA = 4, kAmxB = 6;

struct alignas(64) AmxConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// The shapes of this thread's tiles, from the first set() on. Released when the caller is done, so that a context
// switch has no tiles to save.
class AmxState {
 public:
  AmxState() = default;
  AmxState(const AmxState&) = delete;
  AmxState& operator=(const AmxState&) = delete;
  ~AmxState() {
    if (rows_ > 0) asm volatile("tilerelease");
  }

  // For blocks of `rows` (1 … 32) rows.
  void set(int rows) {
    if (rows == rows_) return;
    rows_ = rows;
    AmxConfig config;
    for (int tile = 0; tile < 8; tile++) {
      config.row_bytes[tile] = 64;
      config.rows[tile] = kAmxRows;
    }
    const int second = rows > kAmxRows ? rows - kAmxRows : 1;
    const auto first = static_cast<uint8_t>(rows < kAmxRows ? rows : kAmxRows);
    config.rows[0] = config.rows[1] = config.rows[kAmxA] = first;
    config.rows[2] = config.rows[3] = config.rows[kAmxA + 1] = static_cast<uint8_t>(second);
    asm volatile("ldtilecfg %0" : : "m"(config));
  }

 private:
  int rows_ = 0;
};

template <int kTile>
inline void amx_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
inline void amx_load(const void* first, int64_t stride) {
  asm volatile("tileloadd (%0, %1), %%tmm%c2" : : "r"(first), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline void amx_store(void* first, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0, %1)" : : "r"(first), "r"(stride), "i"(kTile) : "memory");
}
// Sums [rows][16] += A [rows][16 pairs] * B [16 pairs][16 columns] of bf16. Even and odd terms are each summed by fused
// multiply-adds from 0, then the two together, then that sum to the old one; denormals are zeros.
template <int kSums, int kA, int kB>
inline void amx_multiply_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
}
// Sums [rows][16] += A [rows][16 quads] * B [16 quads][16 columns], of signed and unsigned bytes.
template <int kSums, int kA, int kB>
inline void amx_multiply_int8() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kA), "i"(kB));
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
