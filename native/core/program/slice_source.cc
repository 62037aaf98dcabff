// The address of a tensor slice in its mapped file.
#include "core/program/slice_source.h"

#include <string>

#include "core/error.h"

namespace nds {

const uint8_t* slice_source(const MappedFile& file, const TensorSlice& slice) {
  const int64_t size = slice.stored_size();
  const int64_t end = slice.byte_offset + slice.row_end * slice.num_cols * size;
  if (slice.byte_offset < 0 || end > static_cast<int64_t>(file.size())) {
    throw Error("ERR_CHECKPOINT", "Expected tensor " + slice.name + " to end at byte " + std::to_string(end) +
                                      " of its file but received a file of " + std::to_string(file.size()) + " bytes");
  }
  return file.data() + slice.byte_offset + (slice.row_begin * slice.num_cols + slice.col_begin) * size;
}

}  // namespace nds
