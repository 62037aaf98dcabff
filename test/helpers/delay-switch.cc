// A switch that delays frames: one TAP device `eth0` in each network namespace, and each frame of one goes to all
// others. Arguments: delay in microseconds, then paths of namespaces. Prints `up`; ends with its standard input.
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

using Clock = std::chrono::steady_clock;

struct Frame {
  Clock::time_point due;
  size_t source;
  std::vector<char> bytes;
};

[[noreturn]] static void fail(const char* what) {
  perror(what);
  exit(1);
}

static int open_tap(const char* net) {
  const int space = open(net, O_RDONLY | O_CLOEXEC);
  if (space < 0 || setns(space, CLONE_NEWNET) != 0) fail(net);
  close(space);
  const int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (tap < 0) fail("/dev/net/tun");
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  strcpy(request.ifr_name, "eth0");
  if (ioctl(tap, TUNSETIFF, &request) != 0) fail("TUNSETIFF");
  return tap;
}

// Sends what is due; the wait until the next frame is.
static timespec send_due(std::deque<Frame>& frames, const std::vector<pollfd>& ports) {
  const auto now = Clock::now();
  for (; !frames.empty() && frames.front().due <= now; frames.pop_front()) {
    const Frame& frame = frames.front();
    for (size_t i = 1; i < ports.size(); i++) {
      // A device whose queue is full loses the frame, as a switch does.
      if (i != frame.source && write(ports[i].fd, frame.bytes.data(), frame.bytes.size()) < 0) continue;
    }
  }
  if (frames.empty()) return {3600, 0};
  const auto wait = std::chrono::duration_cast<std::chrono::nanoseconds>(frames.front().due - now).count();
  return {wait / 1'000'000'000, wait % 1'000'000'000};
}

int main(int argc, char** argv) {
  const auto delay = std::chrono::microseconds(atol(argv[1]));
  // Wake when a frame is due and not 50 us later.
  prctl(PR_SET_TIMERSLACK, 1UL);
  std::vector<pollfd> ports{{STDIN_FILENO, POLLIN, 0}};
  for (int i = 2; i < argc; i++) ports.push_back({open_tap(argv[i]), POLLIN, 0});
  puts("up");
  fflush(stdout);
  std::deque<Frame> frames;
  std::vector<char> buffer(65536);
  for (;;) {
    const timespec wait = send_due(frames, ports);
    if (ppoll(ports.data(), ports.size(), &wait, nullptr) < 0) fail("ppoll");
    if (ports[0].revents != 0) return 0;
    const auto due = Clock::now() + delay;
    for (size_t i = 1; i < ports.size(); i++) {
      for (ssize_t size; (size = read(ports[i].fd, buffer.data(), buffer.size())) > 0;) {
        frames.push_back({due, i, std::vector<char>(buffer.begin(), buffer.begin() + size)});
      }
    }
  }
}
