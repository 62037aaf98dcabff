// What the tests of CUDA operators share: device arrays, random values, comparison, and a list of tests.
// Builds against the emulation with any compiler, and against CUDA with nvcc.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "cuda/device.h"

namespace nds::cuda::test {

struct Test {
  const char* name;
  void (*run)();
};
std::vector<Test>& tests();
struct Register {
  Register(const char* name, void (*run)()) { tests().push_back({name, run}); }
};
// Defines a test. It runs `rounds` times, each with other random numbers.
#define CUDA_TEST(name)                                                \
  static void name();                                                  \
  static const nds::cuda::test::Register register_##name(#name, name); \
  static void name()

void note(bool passed, const std::string& what);  // counts, and prints what failed
extern cudaStream_t stream;
extern std::mt19937 engine;

// Of the next launch of an operator of a pass, which may overlap the one before it.
simt::LaunchPlace place();

inline int any(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine); }
inline float normal(float scale = 1) { return std::normal_distribution<float>(0, scale)(engine); }
inline std::vector<float> normals(size_t count, float scale = 1) {
  std::vector<float> values(count);
  for (float& value : values) value = normal(scale);
  return values;
}
inline void must(cudaError_t error) {
  if (error != cudaSuccess) throw nds::Error("ERR_CUDA", cudaGetErrorString(error));
}

// Device memory with a copy of host data, or poison (all bits set).
template <typename T>
class Device {
 public:
  explicit Device(const std::vector<T>& host) : Device(host.size()) { write(host); }
  explicit Device(size_t count) : size(count) {
    must(cudaMalloc(reinterpret_cast<void**>(&data), (count > 0 ? count : 1) * sizeof(T)));
    must(cudaMemsetAsync(data, 0xff, (count > 0 ? count : 1) * sizeof(T), stream));
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { cudaFree(data); }
  void write(const std::vector<T>& host) {
    if (size == 0) return;
    must(cudaMemcpyAsync(data, host.data(), size * sizeof(T), cudaMemcpyHostToDevice, stream));
    must(cudaStreamSynchronize(stream));
  }
  std::vector<T> read() const {
    std::vector<T> host(size);
    if (size == 0) return host;
    must(cudaMemcpyAsync(host.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost, stream));
    must(cudaStreamSynchronize(stream));
    return host;
  }
  T* data = nullptr;
  size_t size;
};

inline uint16_t to_bf16(float value) {  // to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline float from_bf16(uint16_t value) {
  const uint32_t bits = uint32_t{value} << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

// |got - want| <= tolerance * (1 + |want|) everywhere; a NaN never passes.
void expect_near(const std::string& what, const std::vector<float>& got, const std::vector<float>& want,
                 float tolerance);

template <typename T>
void expect_same(const std::string& what, const std::vector<T>& got, const std::vector<T>& want) {
  size_t bad = 0, first = 0;
  for (size_t i = 0; i < want.size(); i++) {
    if (i < got.size() && std::memcmp(&got[i], &want[i], sizeof(T)) == 0) continue;
    if (bad++ == 0) first = i;
  }
  note(bad == 0 && got.size() == want.size(), what + ": " + std::to_string(bad) + " of " + std::to_string(want.size()) +
                                                  " differ, the first at " + std::to_string(first));
}

}  // namespace nds::cuda::test
