// The instruction set that this process uses.
#include "cpu/isa.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "core/error.h"

namespace nds::cpu {
namespace {

const Kernels& select() {
  const IsaList& isas = available_isas();
  const char* wanted = std::getenv("NDS_ISA");
  if (wanted == nullptr || *wanted == '\0') return *isas.tables[0];
  std::string names;
  for (int i = 0; i < isas.count; i++) {
    if (std::strcmp(isas.tables[i]->name, wanted) == 0) return *isas.tables[i];
    names += (i == 0 ? "" : ", ") + std::string(isas.tables[i]->name);
  }
  throw Error("ERR_USAGE", "Expected NDS_ISA to be one of " + names +
                               " (what this processor and build offer) but received " + wanted);
}

}  // namespace

const Kernels& selected_isa() {
  static const Kernels& selected = select();
  return selected;
}

}  // namespace nds::cpu
