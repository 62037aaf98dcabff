// A cheap 64-bit fingerprint of bytes, for ranks to find out that they no longer do the same. Not cryptographic.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/plan/step_result.h"

namespace nds {

// Depends on every byte, their order and the seed: the steps of xxHash64, four lanes of eight bytes.
uint64_t hash_bytes(const void* data, size_t num_bytes, uint64_t seed);

// Of what a step produced: counts, tokens and logits, on every rank the same.
uint64_t hash_output(const StepResult& result);

}  // namespace nds
