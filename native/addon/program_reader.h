// ProgramSpec of rank/native.ts as its native twin, every index checked.
#pragma once
#include <napi.h>

#include "core/program/program.h"

namespace nds::addon {

// @throws Error ERR_INTERNAL naming what is missing, of a wrong type or out of range.
ProgramSpec read_program(const Napi::Object& spec);

}  // namespace nds::addon
