// Runs the tests of CUDA operators: main [rounds] [part of a name]. The last line is `N passed, N failed`.
#include <cstdlib>

#include "harness.h"

namespace nds::cuda::test {

cudaStream_t stream;
std::mt19937 engine(7);
namespace {
int num_passed = 0, num_failed = 0;
}

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

simt::LaunchPlace place() { return {stream, any(0, 1) == 1}; }

void note(bool passed, const std::string& what) {
  (passed ? num_passed : num_failed)++;
  if (!passed) std::printf("FAIL %s\n", what.c_str());
}

void expect_near(const std::string& what, const std::vector<float>& got, const std::vector<float>& want,
                 float tolerance) {
  size_t bad = 0, first = 0;
  for (size_t i = 0; i < want.size(); i++) {
    const bool is_near = i < got.size() && std::fabs(got[i] - want[i]) <= tolerance * (1 + std::fabs(want[i]));
    if (!is_near && bad++ == 0) first = i;
  }
  std::string text = what;
  if (bad > 0) {
    text += ": " + std::to_string(bad) + " of " + std::to_string(want.size()) + " differ, the first at " +
            std::to_string(first) + ": expected " + std::to_string(want[first]) + " but received " +
            (first < got.size() ? std::to_string(got[first]) : "nothing");
  }
  note(bad == 0 && got.size() == want.size(), text);
}

}  // namespace nds::cuda::test

int main(int argc, char** argv) {
  using namespace nds::cuda::test;
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 3;
  const std::string part = argc > 2 ? argv[2] : "";
  setenv("SIMT_PROTECT", "1", 0);  // the emulation reports device memory that is touched too early
  // Kernels of several streams that wait for each other, as those of the one-shot all-reduce do here: each stream has a
  // queue of its own, and no kernel is loaded, which waits for the device, while others run.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  for (const Test& test : tests()) {
    if (std::string(test.name).find(part) == std::string::npos) continue;
    const int failed_before = num_failed;
    try {
      for (int i = 0; i < rounds; i++) test.run();
    } catch (const std::exception& error) {
      note(false, std::string(test.name) + ": " + error.what());
    }
    std::printf("%s %s\n", num_failed == failed_before ? "ok" : "FAILED", test.name);
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed\n", num_passed, num_failed);
  return num_failed == 0 ? 0 : 1;
}
