// A cheap 64-bit fingerprint of bytes, by which ranks detect that they diverged. Not cryptographic.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/plan/step_result.h"

namespace nds {

// Hash of every byte, their order and the seed, by the steps of xxHash64: four lanes of eight bytes.
uint64_t hash_bytes(const void* data, size_t num_bytes, uint64_t seed);

// Hash of a step's counts, tokens and logits, which are the same on every rank.
uint64_t hash_output(const StepResult& result);

}  // namespace nds
