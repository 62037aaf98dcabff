// `Mesh` of rank/native.ts: the connections of a leader to the leaders of other hosts.
#pragma once
#include <napi.h>

#include <memory>

#include "comm/mesh.h"

namespace nds::addon {

// listenMesh(localAddr) → Mesh
Napi::Value listen_mesh(const Napi::CallbackInfo& info);

// The mesh behind the JavaScript object. @throws Error ERR_INTERNAL for any other value, ERR_CLOSED for one that is
// closed.
std::shared_ptr<comm::Mesh> mesh_of(const Napi::Value& value);

}  // namespace nds::addon
