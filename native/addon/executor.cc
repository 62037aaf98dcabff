// One thread that runs jobs in order and settles each on the JavaScript thread.
#include "addon/executor.h"

#include <utility>

namespace nds::addon {

Executor::Executor(Napi::Env env) : env_(env), shared_(std::make_shared<Shared>()) {
  const Napi::Function nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
  shared_->to_js = Napi::ThreadSafeFunction::New(env, nothing, "nds executor", 0, 1);
  shared_->to_js.Unref(env);
  // At exit the thread may be inside a long kernel: it is not waited for, but must not call into a dead environment.
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

void Executor::post(std::function<Settle()> job) {
  if (shared_->num_pending++ == 0) shared_->to_js.Ref(env_);
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->jobs.push_back(std::move(job));
  }
  shared_->wake.notify_one();
}

void Executor::loop(const std::shared_ptr<Shared>& shared) {
  while (true) {
    std::unique_lock<std::mutex> lock(shared->mutex);
    shared->wake.wait(lock, [&] { return !shared->jobs.empty() || shared->stopping; });
    if (shared->jobs.empty()) break;
    const std::function<Settle()> job = std::move(shared->jobs.front());
    shared->jobs.pop_front();
    lock.unlock();
    auto* settle = new Settle(job());
    const std::lock_guard<std::mutex> env_lock(shared->env_mutex);
    if (shared->env_gone) return;  // leaked with the process
    shared->to_js.NonBlockingCall(settle, [shared](Napi::Env env, Napi::Function, Settle* settle) {
      const std::unique_ptr<Settle> done(settle);
      try {
        if (--shared->num_pending == 0) shared->to_js.Unref(env);
        (*done)(env);
      } catch (const Napi::Error&) {
        // A worker thread of Node that is being ended runs no JavaScript any more: nobody waits for the promise.
      }
    });
  }
  const std::lock_guard<std::mutex> env_lock(shared->env_mutex);
  if (!shared->env_gone) shared->to_js.Release();
}

}  // namespace nds::addon
