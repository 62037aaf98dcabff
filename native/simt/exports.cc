// Exported to stand-ins for CUDA's libraries, which are opened at run time: enqueues their work on a stream.
#include "simt/runtime.h"

extern "C" __attribute__((visibility("default"))) int nds_simt_enqueue(void* stream, void (*work)(void*),
                                                                       void* context) {
  const auto run = [work, context] {
    work(context);
    return true;
  };
  return static_cast<int>(simt::enqueue(static_cast<cudaStream_t>(stream), run));
}
