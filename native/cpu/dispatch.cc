// The compiled instruction sets that this processor and its operating system support.
#include "cpu/kernels.h"

#if defined(NDS_ONLY_PORTABLE)
#elif defined(__aarch64__)
#if defined(__APPLE__)
#include <sys/sysctl.h>
#else
#include <sys/auxv.h>
#endif
#else
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace nds::cpu {

namespace portable {
extern const Kernels kernel_table;
}
#if defined(NDS_ONLY_PORTABLE)
#elif defined(__aarch64__)
namespace neon {
extern const Kernels kernel_table;
}
namespace neon_dot {
extern const Kernels kernel_table;
}
namespace neon_bf16 {
extern const Kernels kernel_table;
}
#else
namespace avx2 {
extern const Kernels kernel_table;
}
namespace avx_vnni {
extern const Kernels kernel_table;
}
namespace avx512 {
extern const Kernels kernel_table;
}
namespace avx512_vnni {
extern const Kernels kernel_table;
}
namespace avx512_bf16 {
extern const Kernels kernel_table;
}
namespace amx {
extern const Kernels kernel_table;
}
#endif

namespace {

#if defined(NDS_ONLY_PORTABLE)
void add_own(IsaList&) {}
#elif defined(__aarch64__)
#if defined(__APPLE__)
bool has(const char* feature) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}
#endif

// Whether the processor has sdot. Every arm64 processor has the rest of NEON, conversions of fp16 included.
bool has_dot() {
#if defined(__APPLE__)
  return has("hw.optional.arm.FEAT_DotProd");
#else
  constexpr unsigned long kDot = 1ul << 20;  // HWCAP_ASIMDDP, which older headers lack
  return (getauxval(AT_HWCAP) & kDot) != 0;
#endif
}

// Whether it has bfdot and bfmmla, and usdot and usmmla. Processors have both from Armv8.6 on; one with bf16 alone gets
// neon_dot.
bool has_bf16_and_i8mm() {
#if defined(__APPLE__)
  return has("hw.optional.arm.FEAT_BF16") && has("hw.optional.arm.FEAT_I8MM");
#else
  constexpr unsigned long kBoth = 1ul << 14 | 1ul << 13;  // HWCAP2_BF16 and HWCAP2_I8MM, which older headers lack
  return (getauxval(AT_HWCAP2) & kBoth) == kBoth;
#endif
}

void add_own(IsaList& list) {
  if (has_dot()) {
    if (has_bf16_and_i8mm()) list.tables[list.count++] = &neon_bf16::kernel_table;
    list.tables[list.count++] = &neon_dot::kernel_table;
  }
  list.tables[list.count++] = &neon::kernel_table;
}
#else
struct CpuId {
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  // All zero if the processor lacks that leaf.
  CpuId(unsigned int leaf, unsigned int subleaf) {
    if (__get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx) == 0) eax = ebx = ecx = edx = 0;
  }
};

bool all_set(uint64_t bits, uint64_t wanted) { return (bits & wanted) == wanted; }

// Register states that the system saves on a context switch.
uint64_t saved_states() {
  if (!all_set(CpuId(1, 0).ecx, 1u << 27)) return 0;  // OSXSAVE: xgetbv exists
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// Lets this process, its later threads included, use the tiles of AMX, whose state is large: Linux asks to be asked.
bool is_amx_permitted() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, which older headers lack
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

void add_own(IsaList& list) {
  constexpr uint64_t kYmm = 0x6;   // SSE, AVX
  constexpr uint64_t kZmm = 0xe6;  // kYmm, masks, both parts of the wide registers
  constexpr uint64_t kTiles = 0x60000;
  constexpr uint32_t kFmaAvxF16c = 1u << 12 | 1u << 28 | 1u << 29;
  constexpr uint32_t kAvx2Bmi2 = 1u << 5 | 1u << 8;
  constexpr uint32_t kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  constexpr uint32_t kAvx512Vnni = 1u << 11;                               // in ecx
  constexpr uint32_t kVbmi = 1u << 1;                                      // in ecx, beside AMX
  constexpr uint32_t kAmx = 1u << 22 | 1u << 24 | 1u << 25;                // in edx: bf16, tiles, int8
  constexpr uint32_t kBf16 = 1u << 5, kAvxVnni = 1u << 4;                  // in eax of subleaf 1
  const uint64_t states = saved_states();
  const CpuId extended(7, 0), subleaf(7, 1);
  if (!all_set(states, kYmm) || !all_set(CpuId(1, 0).ecx, kFmaAvxF16c) || !all_set(extended.ebx, kAvx2Bmi2)) return;
  if (all_set(states, kZmm) && all_set(extended.ebx, kAvx512)) {
    // Every processor with bf16 has VNNI.
    if (all_set(extended.ecx, kAvx512Vnni)) {
      if (all_set(subleaf.eax, kBf16)) {
        const bool has_amx = all_set(states, kTiles) && all_set(extended.edx, kAmx) && all_set(extended.ecx, kVbmi) &&
                             is_amx_permitted();
        if (has_amx) list.tables[list.count++] = &amx::kernel_table;
        list.tables[list.count++] = &avx512_bf16::kernel_table;
      }
      list.tables[list.count++] = &avx512_vnni::kernel_table;
    }
    list.tables[list.count++] = &avx512::kernel_table;
  }
  if (all_set(subleaf.eax, kAvxVnni)) list.tables[list.count++] = &avx_vnni::kernel_table;
  list.tables[list.count++] = &avx2::kernel_table;
}
#endif

IsaList detect() {
  IsaList list{};
  add_own(list);
  list.tables[list.count++] = &portable::kernel_table;
  return list;
}

}  // namespace

const IsaList& available_isas() {
  static const IsaList list = detect();
  return list;
}

}  // namespace nds::cpu
