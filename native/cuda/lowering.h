// From a recorded program to the launches of a device: neighbours fuse where a kernel does both, and values that are
// only passed on get no memory of their own. Pure: knows no device.
#pragma once
#include <vector>

#include "core/program/arena.h"
#include "core/program/program.h"
#include "cuda/kernels.h"

namespace nds::cuda {

enum class LaunchKind {
  embedding,
  rms_norm,
  linear,
  all_reduce,
  rope_and_store,
  paged_attention,
  silu_mul,
  add,
  gather_rows,
  sample,
};

// One launch. Values are storages: several values of the program may share one.
struct Launch {
  LaunchKind kind;
  int op;  // of the program: heads, weights and the like
  int x = kNone;
  int b = kNone;     // add: second input; rms_norm: what is added to x first
  int out = kNone;   // linear with LinearResult::add: the accumulator
  int norm = kNone;  // rope_and_store: the head_norm operator before it
  int bias = kNone;  // linear and all_reduce: a weight
  int silu = kNone;  // linear with LinearResult::silu_mul: the silu_mul operator
  LinearResult result = LinearResult::store;
};

struct Lowered {
  std::vector<Launch> launches;
  std::vector<int> storage_of;   // [num_values]
  std::vector<ValueUse> uses;    // of launches, over storages
  std::vector<bool> is_written;  // [num_values] whether a storage holds anything
};

// @throws Error ERR_UNSUPPORTED where an operator stands in a place for which there is no kernel.
Lowered lower(const ProgramSpec& program, int world_size);

}  // namespace nds::cuda
