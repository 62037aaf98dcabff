// A rank's packed matrices as one file, which a later load reads instead of packing them.
#pragma once
#include <cstdint>
#include <string>

#include "core/backend.h"
#include "core/program/program.h"
#include "cpu/thread_pool.h"

namespace nds::cpu {

// Layout, little-endian: PackedFileHeader; the label; zeros up to a multiple of 8; a checksum for each segment of the
// data, in turn; zeros up to data_offset; the data, as it lies in memory. rank/shard-cache/entry-header.ts reads the
// header and the label.
struct PackedFileHeader {
  char magic[8];
  uint32_t layout;  // kPackedLayout
  uint32_t label_bytes;
  uint8_t key[32];
  int64_t data_offset;  // a multiple of 4096
  int64_t data_bytes;
  uint64_t check;  // of all bytes before data_offset, this one being 0
};

// Fills data [num_bytes] from spec.read_path. Empty, or what is wrong with the file; data is then undefined.
std::string read_packed_file(const PackedFileSpec& spec, uint8_t* data, int64_t num_bytes, ThreadPool& pool,
                             const OnLoaded& on_loaded);

// Creates spec.write_path, which must not exist, and writes data [num_bytes]; the caller makes it durable. Empty, or
// what failed; there is then no such file.
std::string write_packed_file(const PackedFileSpec& spec, const uint8_t* data, int64_t num_bytes, ThreadPool& pool,
                              const OnLoaded& on_loaded);

}  // namespace nds::cpu
