// The instruction set that this process uses.
#pragma once
#include "cpu/kernels.h"

namespace nds::cpu {

// The best available instruction set, or the one that NDS_ISA names. Decided once.
// @throws Error ERR_USAGE if NDS_ISA names one that is unknown or unavailable.
const Kernels& selected_isa();

}  // namespace nds::cpu
