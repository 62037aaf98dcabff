// `Mesh` of rank/native.ts: the connections of a leader to the leaders of other hosts.
#include "addon/mesh.h"

#include <cstring>
#include <string>
#include <utility>

#include "addon/executor.h"
#include "addon/js.h"
#include "addon/promises.h"

namespace nds::addon {
namespace {

const napi_type_tag kMeshTag = {0x6e64732d6d657368, 0x8c1f0f5a2b7d4e93};

comm::MeshOptions read_mesh_options(const Napi::Value& value) {
  if (!value.IsObject()) throw Error("ERR_INTERNAL", "Expected an object as the first argument");
  const Napi::Object object = value.As<Napi::Object>();
  comm::MeshOptions options;
  options.node_rank = get_int(object, "nodeRank");
  options.epoch = static_cast<uint64_t>(get_int64(object, "epoch"));
  options.timeout_ms = get_int64(object, "timeoutMs");
  const auto key = as_typed_array<Napi::Uint8Array>(member(object, "key"), napi_uint8_array, "the key of a mesh");
  if (key.ByteLength() != options.key.size())
    throw Error("ERR_INTERNAL", "Expected a key of 16 bytes but received " + std::to_string(key.ByteLength()));
  std::memcpy(options.key.data(), key.Data(), options.key.size());
  const Napi::Array addresses = get_array(object, "addresses"), ports = get_array(object, "ports");
  for (uint32_t i = 0; i < addresses.Length(); i++) {
    const Napi::Value address = addresses.Get(i);
    if (!address.IsString()) throw Error("ERR_INTERNAL", "Expected each address of a mesh to be a string");
    options.addresses.push_back(address.As<Napi::String>().Utf8Value());
  }
  for (uint32_t i = 0; i < ports.Length(); i++) {
    const Napi::Value port = ports.Get(i);
    if (!port.IsNumber()) throw Error("ERR_INTERNAL", "Expected each port of a mesh to be a number");
    options.ports.push_back(port.As<Napi::Number>().Int32Value());
  }
  return options;
}

class Mesh : public Napi::ObjectWrap<Mesh> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Mesh",
                       {InstanceAccessor("port", &Mesh::port, nullptr), InstanceMethod("connect", &Mesh::connect),
                        InstanceMethod("close", &Mesh::close)});
  }

  explicit Mesh(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Mesh>(info) {
    translated(info.Env(), [&] {
      if (!info[0].IsString()) throw Error("ERR_INTERNAL", "Expected an address to listen on");
      mesh_ = comm::Mesh::listen(info[0].As<Napi::String>().Utf8Value());
      port_ = mesh_->port();
      executor_ = std::make_unique<Executor>(info.Env());
    });
    info.This().As<Napi::Object>().TypeTag(&kMeshTag);
  }

  // @throws Error ERR_CLOSED after close().
  const std::shared_ptr<comm::Mesh>& mesh() const {
    if (mesh_ == nullptr) throw Error("ERR_CLOSED", "Expected an open mesh but it was closed");
    return mesh_;
  }

 private:
  Napi::Value port(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), port_); }

  Napi::Value connect(const Napi::CallbackInfo& info) {
    const auto options = translated(info.Env(), [&] { return read_mesh_options(info[0]); });
    const auto mesh = translated(info.Env(), [&] { return this->mesh(); });
    const Deferred deferred = defer(info.Env());
    executor_->post(guarded(deferred, [deferred, options, mesh]() -> Settle {
      mesh->connect(options);
      return resolve(deferred, [](Napi::Env env) { return env.Undefined(); });
    }));
    return deferred->Promise();
  }

  // The connections end with the runners that use them, and this object's memory whenever it is collected.
  Napi::Value close(const Napi::CallbackInfo& info) {
    if (mesh_ != nullptr) mesh_->abort();
    mesh_.reset();
    executor_.reset();
    return info.Env().Undefined();
  }

  int port_ = 0;
  std::shared_ptr<comm::Mesh> mesh_;  // null once closed
  std::unique_ptr<Executor> executor_;
};

}  // namespace

Napi::Value listen_mesh(const Napi::CallbackInfo& info) { return Mesh::define(info.Env()).New({info[0]}); }

std::shared_ptr<comm::Mesh> mesh_of(const Napi::Value& value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kMeshTag))
    throw Error("ERR_INTERNAL", "Expected a mesh as made by listenMesh");
  return Mesh::Unwrap(value.As<Napi::Object>())->mesh();
}

}  // namespace nds::addon
