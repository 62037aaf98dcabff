// Serialized load specs, which nds.node hands to nds_cuda.so, for tests.
#include <string>

#include "addon/js.h"
#include "addon/program_reader.h"
#include "addon/testing/testing.h"
#include "core/program/load_spec_bytes.h"

namespace nds::addon {
namespace {

Napi::Value to_buffer(Napi::Env env, const std::vector<uint8_t>& bytes) {
  return Napi::Buffer<uint8_t>::Copy(env, bytes.data(), bytes.size());
}

// loadSpecBytes(program, draftProgram?) → bytes
Napi::Value load_spec_bytes(const Napi::CallbackInfo& info) {
  return translated(info.Env(), [&] {
    LoadSpec spec;
    spec.model = read_program(info[0].As<Napi::Object>());
    if (info[1].IsObject()) {
      spec.draft = read_program(info[1].As<Napi::Object>());
      spec.shards_draft = true;
      spec.draft_rule = DraftRule::block;
    }
    return to_buffer(info.Env(), write_load_spec(spec));
  });
}

// rewriteLoadSpec(bytes) → the bytes, read and written again
Napi::Value rewrite_load_spec(const Napi::CallbackInfo& info) {
  return translated(info.Env(), [&] {
    const auto bytes = info[0].As<Napi::Uint8Array>();
    return to_buffer(info.Env(),
                     write_load_spec(read_load_spec(bytes.Data(), static_cast<int64_t>(bytes.ByteLength()))));
  });
}

}  // namespace

void register_testing_load_spec(Napi::Env env, Napi::Object testing) {
  testing.Set("loadSpecBytes", Napi::Function::New(env, load_spec_bytes));
  testing.Set("rewriteLoadSpec", Napi::Function::New(env, rewrite_load_spec));
}

}  // namespace nds::addon
