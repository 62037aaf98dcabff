// Reads ProgramSpec of rank/program-spec.ts into its native twin and checks every index.
#pragma once
#include <napi.h>

#include "core/program/program.h"

namespace nds::addon {

// @throws Error ERR_INTERNAL naming the member that is missing, of a wrong type or out of range.
ProgramSpec read_program(const Napi::Object& spec);
// Of object.format: a dtype, int8, int8_zero, int4, int4_zero or fp8. @throws as read_program.
WeightFormat read_format(const Napi::Object& object);
// A slice of one of num_files files. @throws as read_program.
TensorSlice read_slice(const Napi::Object& object, size_t num_files);
// KeptCodes of a matrix. @throws as read_program.
KeptCodes read_codes(const Napi::Object& object);

}  // namespace nds::addon
