// One thread that runs jobs in order; each is settled on the JavaScript thread.
#pragma once
#include <napi.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace nds::addon {

// The part of a job that runs on the JavaScript thread.
using Settle = std::function<void(Napi::Env)>;

// Work in flight that a job has started.
struct Pending {
  std::function<bool()> is_done;   // whether finish() would return at once
  std::function<Settle()> finish;  // waits
};

class Executor {
 public:
  explicit Executor(Napi::Env env);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Queues a job that starts once fewer than max_in_flight() jobs are in flight. All jobs start, end and are settled in
  // order. Node stays alive until the result is settled. settles_held: the job calls settler_of_held() soon after its
  // start. A result that is ready just before such a job starts waits for that call: to settle it wakes the JavaScript
  // thread, often on this processor. JavaScript thread only.
  void post(std::function<Pending()> job, std::function<int()> max_in_flight, bool settles_held);
  // Queues a job that starts once all earlier ones have ended, and ends within its start.
  void post(std::function<Settle()> job);

  // Settles the result that waits, if any. For a job to call within its start, any number of times, on this executor's
  // thread.
  std::function<void()> settler_of_held() const;

 private:
  // Shared with the thread, which may outlive the environment at process exit.
  struct Shared {
    std::mutex mutex;  // guards jobs and stopping
    std::condition_variable wake;
    struct Job {
      std::function<Pending()> start;
      std::function<int()> max_in_flight;
      bool settles_held;
    };
    std::deque<Job> jobs;
    bool stopping = false;
    // Guards env_gone and the calls to to_js. Separate from `mutex`, which the JavaScript thread takes in `post`: a
    // call to to_js wakes that thread, often on the caller's processor, where it would find the lock held.
    std::mutex env_mutex;
    bool env_gone = false;
    Napi::ThreadSafeFunction to_js;
    int num_pending = 0;  // JavaScript thread only
    Settle held;          // of the job that ended last, if it is not settled; executor thread only
  };
  static void loop(const std::shared_ptr<Shared>& shared);
  static bool settle_held(const std::shared_ptr<Shared>& shared);

  Napi::Env env_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace nds::addon
