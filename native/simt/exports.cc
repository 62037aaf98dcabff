// Exported to stand-ins for CUDA's libraries, which are opened at run time: enqueues their work on a stream.
#include "simt/runtime.h"

// work: 1 = done, 0 = it waits for something, and is called again.
extern "C" __attribute__((visibility("default"))) int nds_simt_enqueue(void* stream, int (*work)(void*),
                                                                       void* context) {
  const auto run = [work, context] { return work(context) != 0; };
  return static_cast<int>(simt::enqueue(static_cast<cudaStream_t>(stream), run));
}
