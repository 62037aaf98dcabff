// One thread that runs jobs in order; each is settled on the JavaScript thread.
#include "addon/executor.h"

#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include <chrono>
#include <utility>

namespace nds::addon {
namespace {

using Clock = std::chrono::steady_clock;

// Spin time for which a job in flight is polled without sleeping, then the nap between polls. A CPU step ends within
// its start; a device's takes hundreds of microseconds, in which other threads may need the processor.
constexpr std::chrono::microseconds kSpin{50};
constexpr std::chrono::microseconds kNap{20};
// Max polling time of a job; then finish() waits for it, which knows the step's deadline.
constexpr std::chrono::seconds kPatience{1};

// Timer slack 1 us: Linux's default would lengthen each nap by up to 50 us.
void fine_timers() {
#if defined(__linux__)
  prctl(PR_SET_TIMERSLACK, 1000UL);
#endif
}

}  // namespace

Executor::Executor(Napi::Env env) : env_(env), shared_(std::make_shared<Shared>()) {
  const Napi::Function nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
  shared_->to_js = Napi::ThreadSafeFunction::New(env, nothing, "nds executor", 0, 1);
  shared_->to_js.Unref(env);
  // At exit nobody waits for the thread, which may be inside a long kernel; it must not call into a dead environment.
  std::weak_ptr<Shared> weak = shared_;
  env.AddCleanupHook([weak] {
    if (const std::shared_ptr<Shared> shared = weak.lock()) {
      const std::lock_guard<std::mutex> lock(shared->env_mutex);
      shared->env_gone = true;
    }
  });
  std::thread([shared = shared_] { loop(shared); }).detach();
}

Executor::~Executor() {
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->stopping = true;
  }
  shared_->wake.notify_one();
}

void Executor::post(std::function<Pending()> job, std::function<int()> max_in_flight, bool settles_held) {
  if (shared_->num_pending++ == 0) shared_->to_js.Ref(env_);
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->jobs.push_back({std::move(job), std::move(max_in_flight), settles_held});
  }
  shared_->wake.notify_one();
}

void Executor::post(std::function<Settle()> job) {
  const auto start = [job = std::move(job)]() -> Pending {
    return {[] { return true; }, [settle = job()] { return settle; }};
  };
  post(start, [] { return 1; }, false);
}

std::function<void()> Executor::settler_of_held() const {
  return [weak = std::weak_ptr(shared_)] {
    if (const std::shared_ptr<Shared> shared = weak.lock()) settle_held(shared);
  };
}

// Queues the result that waits, if any, for the JavaScript thread. False once the environment is gone; then it stays.
bool Executor::settle_held(const std::shared_ptr<Shared>& shared) {
  if (shared->held == nullptr) return true;
  const std::lock_guard<std::mutex> env_lock(shared->env_mutex);
  if (shared->env_gone) return false;
  auto* settle = new Settle(std::exchange(shared->held, nullptr));
  shared->to_js.NonBlockingCall(settle, [shared](Napi::Env env, Napi::Function, Settle* settle) {
    const std::unique_ptr<Settle> done(settle);
    try {
      if (--shared->num_pending == 0) shared->to_js.Unref(env);
      (*done)(env);
    } catch (const Napi::Error&) {
      // A worker thread of Node that is terminating runs no more JavaScript, so nothing awaits the promise.
    }
  });
  return true;
}

void Executor::loop(const std::shared_ptr<Shared>& shared) {
  std::deque<Pending> in_flight;
  fine_timers();
  Clock::time_point last_change;  // the last start or end of a job
  while (true) {
    std::unique_lock<std::mutex> lock(shared->mutex);
    if (in_flight.empty()) shared->wake.wait(lock, [&] { return !shared->jobs.empty() || shared->stopping; });
    const bool has_job = !shared->jobs.empty();
    if (in_flight.empty() && !has_job) break;
    const bool starts =
        has_job && (in_flight.empty() || static_cast<int>(in_flight.size()) < shared->jobs.front().max_in_flight());
    if (starts) {
      const Shared::Job job = std::move(shared->jobs.front());
      shared->jobs.pop_front();
      lock.unlock();
      in_flight.push_back(job.start());
      if (!settle_held(shared)) return;
    } else {
      lock.unlock();
    }
    // With a queued job and no room for it there is no polling: the oldest job must finish first.
    if (starts) last_change = Clock::now();
    const auto waited = Clock::now() - last_change;
    if (!in_flight.front().is_done() && (starts || !has_job) && waited < kPatience) {
      if (waited > kSpin) {
        lock.lock();
        shared->wake.wait_for(lock, kNap, [&] { return !shared->jobs.empty(); });
      } else {
        std::this_thread::yield();
      }
      continue;
    }
    last_change = Clock::now();
    shared->held = in_flight.front().finish();
    in_flight.pop_front();
    lock.lock();
    const bool waits = in_flight.empty() && !shared->jobs.empty() && shared->jobs.front().settles_held;
    lock.unlock();
    if (!waits && !settle_held(shared)) return;
  }
  const std::lock_guard<std::mutex> env_lock(shared->env_mutex);
  if (!shared->env_gone) shared->to_js.Release();
}

}  // namespace nds::addon
