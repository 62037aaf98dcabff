// One thread that runs jobs in order and settles each on the JavaScript thread.
#pragma once
#include <napi.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace nds::addon {

// What a job leaves to do on the JavaScript thread.
using Settle = std::function<void(Napi::Env)>;

class Executor {
 public:
  explicit Executor(Napi::Env env);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Queues a job. Node stays alive until its result is settled. Only from the JavaScript thread.
  void post(std::function<Settle()> job);

 private:
  // Shared with the thread, which may outlive the environment at process exit.
  struct Shared {
    std::mutex mutex;  // guards jobs and stopping
    std::condition_variable wake;
    std::deque<std::function<Settle()>> jobs;
    bool stopping = false;
    // Guards env_gone and the calls to to_js. Apart from the other one, which the JavaScript thread takes in `post`: a
    // call to to_js wakes that thread, often on the processor of the caller, and it would find the lock held.
    std::mutex env_mutex;
    bool env_gone = false;
    Napi::ThreadSafeFunction to_js;
    int num_pending = 0;  // JavaScript thread only
  };
  static void loop(const std::shared_ptr<Shared>& shared);

  Napi::Env env_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace nds::addon
