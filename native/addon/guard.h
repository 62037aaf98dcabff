// Prevents orphans: a rank dies with the process that started it, whatever its JavaScript is doing.
#pragma once
#include <napi.h>

namespace nds::addon {

// guardProcess(parentPid, watchFd)
void guard_process(const Napi::CallbackInfo& info);

}  // namespace nds::addon
