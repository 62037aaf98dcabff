// Where a slice of a tensor begins in its mapped file.
#pragma once
#include <cstdint>

#include "core/memory.h"
#include "core/program/program.h"

namespace nds {

// First element of the slice. @throws Error ERR_CHECKPOINT where the slice does not end inside the file.
const uint8_t* slice_source(const MappedFile& file, const TensorSlice& slice);

}  // namespace nds
