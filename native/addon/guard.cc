// Prevents orphans: a rank dies with the process that started it, whatever its JavaScript is doing.
#include "addon/guard.h"

#include <signal.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <cerrno>
#include <thread>

#include "addon/js.h"

namespace nds::addon {
namespace {

// The descriptor carries no data: a read returns when its other end, which only the launcher holds, is closed.
void die_at_end_of_file(int fd) {
  char byte;
  while (true) {
    const ssize_t got = read(fd, &byte, 1);
    if (got > 0 || (got < 0 && errno == EINTR)) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      usleep(100000);
      continue;
    }
    kill(getpid(), SIGKILL);
  }
}

}  // namespace

void guard_process(const Napi::CallbackInfo& info) {
  const int parent = info[0].As<Napi::Number>().Int32Value();
  const int watch_fd = info[1].As<Napi::Number>().Int32Value();
#ifdef __linux__
  prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
  // The parent may have died before the death signal was requested.
  if (getppid() != parent) kill(getpid(), SIGKILL);
  translated(info.Env(), [watch_fd] {
    if (watch_fd >= 0) std::thread(die_at_end_of_file, watch_fd).detach();
  });
}

}  // namespace nds::addon
