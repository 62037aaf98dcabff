// The threads of a rank: they run one function together, or stages whose parts they claim; who waits spins, then
// sleeps.
#pragma once
#include <functional>
#include <memory>
#include <vector>

namespace nds::cpu {

// Work in stages, one after the other, each of ThreadPool::size() parts.
struct Stages {
  int count = 0;
  // Any thread may do any part, so a result must depend on the index of the part alone. A stage's parts see everything
  // that the stages before it wrote. Must not throw or meet at barrier().
  std::function<void(int stage, int part)> part;
  std::function<void(int stage)> ended;  // on one thread, between a stage's last part and the next; must not throw
  // On the calling thread: before it waits for its turn in a shared pool, if it has to, and once other threads may do
  // parts of the first stage. Must not throw.
  std::function<void()> begun;
};

class ThreadPool {
 public:
  // The calling thread is thread 0; num_threads - 1 more are started. Thread i is pinned to cores[i] if there are any.
  // crowded: threads, including other ranks', outnumber the cores, so that spinning keeps others from running.
  // @throws Error ERR_SYSTEM if a thread cannot be started or pinned (systems other than Linux cannot pin),
  // ERR_INTERNAL for a wrong number of threads or cores.
  explicit ThreadPool(int num_threads, const std::vector<int>& cores = {}, bool crowded = false);
  // The pool of num_threads threads that the models of this process share. Shared pools run one body at a time, in
  // order of arrival, so that models do not crowd each other's cores. The calling thread is pinned like thread 0.
  static std::shared_ptr<ThreadPool> shared(int num_threads, const std::vector<int>& cores, bool crowded);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;
  // Runs body(tid) on every thread; returns once all have returned. Only thread 0 may call it or, of a shared pool, any
  // thread that got it: it is thread 0 meanwhile. body must not throw.
  void run(const std::function<void(int tid)>& body);
  // Runs all stages; returns once the last has ended. A thread does its own part of a stage first, then parts that
  // other threads have not begun, so a thread whose core is busy with something else holds up only the part it is in.
  // Called as run is.
  void run_stages(const Stages& stages);
  // Inside run: waits until all threads have arrived. Everything written before it is visible after it.
  void barrier();

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
  bool takes_turns_ = false;
};

// Cores that this process may use, ascending; on systems without affinity, 0 … (number of cores - 1).
std::vector<int> allowed_cores();

}  // namespace nds::cpu
