// How leaders find each other: node i listens, every node above it connects, and both prove that they hold the key.
#include "comm/mesh_meeting.h"

#include <poll.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/random.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>

#include "comm/mesh_greeting.h"
#include "core/error.h"

namespace nds::comm {
namespace {

// A connection that has not proved itself by then is a stranger's: the oldest one goes past the max number, too. One to
// a node that has not answered by then is made anew.
constexpr int64_t kStrangerMs = 10000;
constexpr size_t kMaxStrangers = 128;
constexpr int kMaxAccepts = 16;
constexpr int64_t kRetryMs = 100;

class Meeting {
 public:
  Meeting(const Descriptor& listener, const MeshOptions& options, const WakePipe& wake,
          const std::atomic<bool>& aborted)
      : listener_(listener), options_(options), wake_(wake), aborted_(aborted), links_(options.addresses.size()) {
    reasons_.resize(links_.size());
    retry_at_.assign(links_.size(), 0);
  }

  std::vector<std::unique_ptr<MeshLink>> run() {
    const int64_t deadline = now_ms() + options_.timeout_ms;
    while (num_missing() > 0) {
      if (aborted_.load()) throw Error("ERR_CLOSED", "Expected to meet the other nodes but the mesh was closed");
      if (now_ms() >= deadline) fail();
      connect_to_missing();
      wait(std::min<int64_t>(deadline - now_ms(), kRetryMs));
      accept_some();
      for (auto it = calls_.begin(); it != calls_.end();) {
        if (advance(*it)) {
          ++it;
        } else {
          it = calls_.erase(it);
        }
      }
    }
    return std::move(links_);
  }

 private:
  // A connection that is not a link yet.
  struct Call {
    Descriptor socket;
    int peer;  // node that this one calls; -1 = it called
    int64_t opened_at;
    Transcript transcript{};
    uint8_t in[sizeof(Greeting) + sizeof(Mac)] = {};
    size_t received = 0;
    std::vector<uint8_t> out{};
    bool is_connected = false, has_answered = false, has_proved = false;
  };

  bool is_mine(size_t node) const { return static_cast<int>(node) == options_.node_rank; }

  size_t num_missing() const {
    size_t count = 0;
    for (size_t n = 0; n < links_.size(); n++) count += !is_mine(n) && links_[n] == nullptr;
    return count;
  }

  [[noreturn]] void fail() const {
    std::string names;
    for (size_t n = 0; n < links_.size(); n++) {
      if (is_mine(n) || links_[n] != nullptr) continue;
      names += (names.empty() ? "node " : ", node ") + std::to_string(n) + " (" + options_.addresses[n] +
               (reasons_[n].empty() ? "" : ": " + reasons_[n]) + ")";
    }
    throw Error("ERR_PEER_LOST", "Expected the leaders of all nodes to meet within " +
                                     seconds_text(options_.timeout_ms) + " s but " + names + " did not come" +
                                     (refused_.empty() ? "" : "; " + refused_));
  }

  Greeting greeting() const {
    Greeting mine;
    mine.node = static_cast<uint32_t>(options_.node_rank);
    mine.num_nodes = static_cast<uint32_t>(links_.size());
    mine.epoch = options_.epoch;
    if (getentropy(mine.nonce, sizeof(mine.nonce)) != 0) throw Error("ERR_SYSTEM", "Expected random bytes");
    return mine;
  }

  // Lower nodes listen.
  void connect_to_missing() {
    for (int n = 0; n < options_.node_rank; n++) {
      const bool is_calling =
          std::any_of(calls_.begin(), calls_.end(), [n](const Call& call) { return call.peer == n; });
      if (links_[n] != nullptr || is_calling || now_ms() < retry_at_[n]) continue;
      retry_at_[n] = now_ms() + kRetryMs;
      Descriptor socket = start_connect(options_.addresses[n], options_.ports[n], reasons_[n]);
      if (socket.is_open()) calls_.push_back({.socket = std::move(socket), .peer = n, .opened_at = now_ms()});
    }
  }

  void wait(int64_t milliseconds) {
    std::vector<pollfd> polled = {{wake_.read_end(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    for (const Call& call : calls_) {
      const bool writes = (call.peer >= 0 && !call.is_connected) || !call.out.empty();
      polled.push_back({call.socket.get(), static_cast<short>(writes ? POLLIN | POLLOUT : POLLIN), 0});
    }
    poll(polled.data(), static_cast<nfds_t>(polled.size()), static_cast<int>(std::max<int64_t>(milliseconds, 0)));
  }

  // Some at a time, so that calls go on between floods of new ones.
  void accept_some() {
    for (int i = 0; i < kMaxAccepts; i++) {
      Descriptor socket = accept_from(listener_);
      if (!socket.is_open()) return;
      make_room();
      calls_.push_back({.socket = std::move(socket), .peer = -1, .opened_at = now_ms()});
    }
  }

  // Drops the oldest caller where there are too many: one that has not even greeted, if possible.
  void make_room() {
    const auto is_caller = [](const Call& call) { return call.peer < 0; };
    const auto is_silent = [](const Call& call) { return call.peer < 0 && !call.has_answered; };
    if (static_cast<size_t>(std::count_if(calls_.begin(), calls_.end(), is_caller)) < kMaxStrangers) return;
    const auto silent = std::find_if(calls_.begin(), calls_.end(), is_silent);
    calls_.erase(silent != calls_.end() ? silent : std::find_if(calls_.begin(), calls_.end(), is_caller));
  }

  template <typename T>
  static void append(std::vector<uint8_t>& out, const T& value) {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&value);
    out.insert(out.end(), bytes, bytes + sizeof(T));
  }

  static bool send(Call& call) {
    if (call.out.empty()) return true;
    const ssize_t sent = send_some(call.socket, call.out.data(), call.out.size());
    if (sent < 0) return false;
    call.out.erase(call.out.begin(), call.out.begin() + sent);
    return true;
  }

  // Receives up to `bytes` of the next message. Returns 1 once it is whole, 0 before, -1 at the end of the stream.
  static int receive(Call& call, size_t bytes) {
    const ssize_t received = receive_some(call.socket, call.in + call.received, bytes - call.received);
    if (received < 0) return -1;
    call.received += static_cast<size_t>(received);
    if (call.received < bytes) return 0;
    call.received = 0;
    return 1;
  }

  // Goes on with a call. False drops it.
  bool advance(Call& call) {
    const bool is_late = now_ms() - call.opened_at >= kStrangerMs;
    if (call.peer < 0) return !is_late && send(call) && advance_listener(call);
    if (is_late && !call.has_answered) {
      reasons_[call.peer] = "it did not answer";
      return false;
    }
    if (advance_connector(call) && send(call)) return true;
    if (reasons_[call.peer].empty() && links_[call.peer] == nullptr) reasons_[call.peer] = "it dropped the connection";
    return false;
  }

  bool advance_connector(Call& call) {
    std::string& reason = reasons_[call.peer];
    if (!call.is_connected) {
      pollfd polled{call.socket.get(), POLLOUT, 0};
      if (poll(&polled, 1, 0) <= 0) return true;
      reason = connect_error(call.socket);
      if (!reason.empty()) return false;
      call.is_connected = true;
      call.transcript.connector = greeting();
      append(call.out, call.transcript.connector);
      return true;
    }
    const size_t wanted = call.has_answered ? sizeof(Mac) : sizeof(Greeting) + sizeof(Mac);
    const int status = receive(call, wanted);
    if (status <= 0) return status == 0;
    Mac proof;
    std::memcpy(proof.data(), call.in + wanted - sizeof(Mac), sizeof(Mac));
    if (call.has_answered) {
      if (!same_mac(proof, call.transcript.mac(options_.key, Label::taken))) return false;
      take(call, call.peer);
      return false;
    }
    std::memcpy(&call.transcript.listener, call.in, sizeof(Greeting));
    const bool is_authentic = same_mac(proof, call.transcript.mac(options_.key, Label::listener_proof));
    if (!is_authentic) reason = "it holds another key";
    if (!is_authentic || !fits(call.transcript.listener, call.peer, reason)) return false;
    append(call.out, call.transcript.mac(options_.key, Label::connector_proof));
    call.has_answered = true;
    return true;
  }

  bool advance_listener(Call& call) {
    if (call.has_proved) {
      if (!call.out.empty()) return true;
      take(call, static_cast<int>(call.transcript.connector.node));
      return false;
    }
    const int status = receive(call, call.has_answered ? sizeof(Mac) : sizeof(Greeting));
    if (status <= 0) return status == 0;
    if (!call.has_answered) {
      std::memcpy(&call.transcript.connector, call.in, sizeof(Greeting));
      if (call.transcript.connector.magic != kMeshMagic) return false;
      call.transcript.listener = greeting();
      append(call.out, call.transcript.listener);
      append(call.out, call.transcript.mac(options_.key, Label::listener_proof));
      call.has_answered = true;
      return send(call);
    }
    Mac proof;
    std::memcpy(proof.data(), call.in, sizeof(Mac));
    const Greeting& theirs = call.transcript.connector;
    if (!same_mac(proof, call.transcript.mac(options_.key, Label::connector_proof))) {
      refused_ = "a caller with another key was refused";
      return false;
    }
    if (!fits(theirs, -1, refused_)) return false;
    append(call.out, call.transcript.mac(options_.key, Label::taken));
    call.has_proved = true;
    return send(call) && advance_listener(call);
  }

  // Whether a node belongs to this mesh; peer = the node that is expected, -1 = any above this one.
  bool fits(const Greeting& theirs, int peer, std::string& reason) const {
    const bool is_expected =
        peer >= 0 ? theirs.node == static_cast<uint32_t>(peer)
                  : theirs.node > static_cast<uint32_t>(options_.node_rank) && theirs.node < links_.size();
    if (is_expected && theirs.magic == kMeshMagic && theirs.version == kMeshVersion &&
        theirs.num_nodes == links_.size() && theirs.epoch == options_.epoch)
      return true;
    reason = "node " + std::to_string(theirs.node) + " of " + std::to_string(theirs.num_nodes) + ", epoch " +
             std::to_string(theirs.epoch) + ", version " + std::to_string(theirs.version) + " is of another mesh";
    return false;
  }

  // A later connection of the same node replaces an earlier one, which that node has given up.
  void take(Call& call, int peer) {
    const Key up = call.transcript.mac(options_.key, Label::to_listener);
    const Key down = call.transcript.mac(options_.key, Label::to_connector);
    const LinkKeys keys = call.peer >= 0 ? LinkKeys{up, down} : LinkKeys{down, up};
    links_[peer] = std::make_unique<MeshLink>(std::move(call.socket), options_.node_rank, peer, keys);
  }

  const Descriptor& listener_;
  const MeshOptions& options_;
  const WakePipe& wake_;
  const std::atomic<bool>& aborted_;
  std::list<Call> calls_;
  std::vector<std::unique_ptr<MeshLink>> links_;
  std::vector<std::string> reasons_;  // why the last try to reach a node failed
  std::vector<int64_t> retry_at_;
  std::string refused_;
};

}  // namespace

std::vector<std::unique_ptr<MeshLink>> meet(const Descriptor& listener, const MeshOptions& options,
                                            const WakePipe& wake, const std::atomic<bool>& aborted) {
  return Meeting(listener, options, wake, aborted).run();
}

}  // namespace nds::comm
