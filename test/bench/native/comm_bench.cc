// Latency of the shared-memory all-reduce between processes: comm_bench [ranks] [microseconds of work before each]
// [roots]. g++ -std=c++20 -O3 -I native test/bench/native/comm_bench.cc native/comm/*.cc -o comm_bench -pthread
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "comm/communicator.h"
#include "core/error.h"

namespace {

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

void pin_to_core(int index) {
  cpu_set_t allowed, one;
  sched_getaffinity(0, sizeof(allowed), &allowed);
  index %= CPU_COUNT(&allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed) || index-- != 0) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof(one), &one);
  }
}

void work(double microseconds) {
  const Clock::time_point start = Clock::now();
  while (microseconds > 0 && microseconds_since(start) < microseconds) {
  }
}

struct Setting {
  int num_ranks;
  double work_us;
  int num_roots;
};

void measure(nds::comm::Communicator& comm, const Setting& setting, int64_t bytes) {
  const int64_t count = bytes / 4;
  const int num_iterations = static_cast<int>(std::min<int64_t>(20000, 20 + (int64_t{1} << 29) / (bytes + 16384)) /
                                              (1 + setting.work_us / 20));
  std::vector<float> data(count * setting.num_roots, 1.0f), out(count);
  std::vector<const float*> local;
  for (int i = 0; i < setting.num_roots; i++) local.push_back(data.data() + i * count);
  const std::vector<int> num_roots(setting.num_ranks, setting.num_roots);
  const int num_inputs = setting.num_ranks * setting.num_roots;
  const auto join = [num_inputs](const float* const* inputs, int64_t begin, int64_t end, float* to) {
    if (num_inputs == 2) {
      for (int64_t i = begin; i < end; i++) to[i] = inputs[0][i] + inputs[1][i];
      return;
    }
    for (int64_t i = begin; i < end; i++) {
      float sum = inputs[0][i];
      for (int k = 1; k < num_inputs; k++) sum += inputs[k][i];
      to[i] = sum;
    }
  };
  std::vector<double> times;
  double cpu = static_cast<double>(clock());
  const Clock::time_point begin = Clock::now();
  for (int i = -num_iterations / 10; i < num_iterations; i++) {
    work(setting.work_us);
    const Clock::time_point start = Clock::now();
    comm.all_reduce(local.data(), num_roots.data(), count, join, out.data());
    if (i >= 0) times.push_back(microseconds_since(start));
    if (out[count / 2] != static_cast<float>(num_inputs)) {
      std::fprintf(stderr, "wrong sum\n");
      std::exit(1);
    }
  }
  const double wall = microseconds_since(begin);
  cpu = (static_cast<double>(clock()) - cpu) / CLOCKS_PER_SEC * 1e6;
  std::sort(times.begin(), times.end());
  double mean = 0;
  for (const double time : times) mean += time / static_cast<double>(times.size());
  if (comm.rank() != 0) return;
  std::printf("%9lld B  median %8.2f us  p90 %8.2f  p99 %8.2f  mean %8.2f  all %8.2f us each  cpu %3.0f %%\n",
              static_cast<long long>(bytes), times[times.size() / 2], times[times.size() * 9 / 10],
              times[times.size() * 99 / 100], mean, wall / (num_iterations * 1.1), 100 * cpu / wall);
}

int run_rank(int rank, int fd, const Setting& setting) {
  pin_to_core(rank);
  try {
    const auto comm = nds::comm::make_shm({rank, setting.num_ranks, fd});
    comm->set_step(1);
    for (int64_t bytes = 256; bytes <= (4 << 20); bytes *= bytes < 65536 ? 2 : 4) measure(*comm, setting, bytes);
  } catch (const nds::Error& error) {
    std::fprintf(stderr, "rank %d: %s: %s\n", rank, error.code, error.what());
    return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const Setting setting{argc > 1 ? std::atoi(argv[1]) : 2, argc > 2 ? std::atof(argv[2]) : 0,
                        argc > 3 ? std::atoi(argv[3]) : 1};
  std::FILE* file = std::tmpfile();
  if (file == nullptr || setting.num_ranks < 1 || setting.num_roots < 1) return 64;
  for (int rank = 1; rank < setting.num_ranks; rank++) {
    if (fork() == 0) _exit(run_rank(rank, fileno(file), setting));
  }
  int failed = run_rank(0, fileno(file), setting);
  for (int status; wait(&status) > 0;) failed |= status;
  return failed != 0;
}
