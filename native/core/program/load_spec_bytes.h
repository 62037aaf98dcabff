// Serializes a LoadSpec for a backend in another library.
#pragma once
#include <cstdint>
#include <vector>

#include "core/program/program.h"

namespace nds {

std::vector<uint8_t> write_load_spec(const LoadSpec& spec);
// @throws Error ERR_INTERNAL unless write_load_spec of the same version wrote the bytes.
LoadSpec read_load_spec(const uint8_t* bytes, int64_t num_bytes);

}  // namespace nds
