// Which instruction set this process uses.
#pragma once
#include "cpu/kernels.h"

namespace nds::cpu {

// The best available one, or the one that NDS_ISA names. Decided once.
// @throws Error ERR_USAGE when NDS_ISA names one that is unknown or not available here.
const Kernels& selected_isa();

}  // namespace nds::cpu
