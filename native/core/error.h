// The one error type of native code; the addon translates it into an NdsError with the same code.
#pragma once
#include <stdexcept>
#include <string>

namespace nds {

struct Error : std::runtime_error {
  Error(const char* error_code, const std::string& message) : std::runtime_error(message), code(error_code) {}
  const char* code;  // a literal: one of protocol/errors.ts
};

}  // namespace nds
