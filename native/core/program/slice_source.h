// The address of a tensor slice in its mapped file.
#pragma once
#include <cstdint>

#include "core/memory.h"
#include "core/program/program.h"

namespace nds {

// First element of the slice. @throws Error ERR_CHECKPOINT unless the slice lies inside the file.
const uint8_t* slice_source(const MappedFile& file, const TensorSlice& slice);

}  // namespace nds
