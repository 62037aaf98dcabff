// Which of the compiled instruction sets this processor and its operating system offer.
#include "cpu/kernels.h"

namespace nds::cpu {

namespace portable {
extern const Kernels kernel_table;
}
#ifndef NDS_ONLY_PORTABLE
namespace avx2 {
extern const Kernels kernel_table;
}
namespace avx512 {
extern const Kernels kernel_table;
}
namespace avx512_bf16 {
extern const Kernels kernel_table;
}
#endif

namespace {

IsaList detect() {
  IsaList list{};
#ifndef NDS_ONLY_PORTABLE
  // These look at cpuid and at what the system saves on a context switch.
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl");
  if (has_avx512 && __builtin_cpu_supports("avx512bf16")) list.tables[list.count++] = &avx512_bf16::kernel_table;
  if (has_avx512) list.tables[list.count++] = &avx512::kernel_table;
  if (has_avx2) list.tables[list.count++] = &avx2::kernel_table;
#endif
  list.tables[list.count++] = &portable::kernel_table;
  return list;
}

}  // namespace

const IsaList& available_isas() {
  static const IsaList list = detect();
  return list;
}

}  // namespace nds::cpu
