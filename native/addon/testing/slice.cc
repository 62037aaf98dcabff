// `testing.readSlice`: rows of a tensor slice, converted as a load converts them.
#include <string>
#include <vector>

#include "addon/program_reader.h"
#include "addon/testing/arrays.h"
#include "addon/testing/testing.h"
#include "core/program/slice_reader.h"

namespace nds::addon {
namespace {

// readSlice({ files, slice, dtype, firstRow, numRows, ld }) → { inPlace, rows: bytes [numRows, ld] }; bytes that are
// not written are 0xff.
Napi::Value read_slice_rows(Napi::Env env, const Napi::Object& options) {
  const Napi::Array paths = get_array(options, "files");
  std::vector<MappedFile> files;
  for (uint32_t i = 0; i < paths.Length(); i++) files.emplace_back(paths.Get(i).As<Napi::String>().Utf8Value());
  const TensorSlice slice = read_slice(get_object(options, "slice"), files.size());
  const DType dtype = get_dtype(options, "dtype");
  const int64_t first_row = get_int64(options, "firstRow"), num_rows = get_int64(options, "numRows");
  const int64_t ld = get_int64(options, "ld");
  if (first_row < 0 || num_rows < 0 || first_row + num_rows > slice.num_rows() || ld < slice.num_slice_cols())
    throw Error("ERR_INTERNAL", "Expected rows of the slice");
  const SliceReader reader(files, slice, dtype);
  std::vector<uint8_t> rows(static_cast<size_t>(num_rows * ld) * dtype_size(dtype), 0xff);
  reader.read(first_row, num_rows, rows.data(), ld);
  Napi::Object result = Napi::Object::New(env);
  result.Set("inPlace", reader.in_place() != nullptr);
  result.Set("rows", Napi::Buffer<uint8_t>::Copy(env, rows.data(), rows.size()));
  return result;
}

}  // namespace

void register_testing_slice(Napi::Env env, Napi::Object testing) {
  add_method(env, testing, "readSlice", read_slice_rows);
}

}  // namespace nds::addon
