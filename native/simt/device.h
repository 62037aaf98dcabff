// CUDA's device language for a plain C++ compiler. Threads of a block are fibers of one OS thread (scheduler.cc): warp
// and block collectives really meet. Behaviour that CUDA leaves undefined is an error of the launch.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

#include "simt/collectives.h"
#include "simt/intrinsics.h"
#include "simt/memory_order.h"
#include "simt/types.h"

namespace simt {

extern __thread uint3 thread_index;  // of the running fiber
extern __thread uint3 block_index;
extern __thread dim3 block_shape;
extern __thread dim3 grid_shape;

}  // namespace simt

#define threadIdx (simt::thread_index)
#define blockIdx (simt::block_index)
#define blockDim (simt::block_shape)
#define gridDim (simt::grid_shape)

inline long long clock64() { return static_cast<long long>(simt::nanoseconds()); }
