// The exchanges of one communicator over a mesh.
#include "comm/mesh_session.h"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "comm/wait.h"
#include "core/error.h"

namespace nds::comm {
namespace {

// Spin time before a leader sleeps. The processor is yielded between reads: a host may lack a core for every rank.
constexpr std::chrono::microseconds kSpin{50};
// Max time for the word that this host leaves, where a connection is full.
constexpr int64_t kDepartureMs = 500;
constexpr size_t kMaxMessage = 2000;

}  // namespace

MeshSession::MeshSession(std::shared_ptr<Mesh> mesh, uint32_t number, const LeaderOptions& options)
    : mesh_(std::move(mesh)), number_(number), options_(options), transfers_(mesh_->links_.size()) {}

MeshSession::~MeshSession() {
  const std::lock_guard<std::mutex> lock(mesh_->mutex_);
  depart(kClosed, "");
}

void MeshSession::exchange(const HostExchange& exchange) {
  {
    const std::lock_guard<std::mutex> lock(mesh_->mutex_);
    exchange_ = &exchange;
    struct End {
      MeshSession& session;
      ~End() {
        session.exchange_ = nullptr;
        session.options_.progress.end_wait();
      }
    } const end{*this};
    try {
      run(exchange);
    } catch (const Error& error) {
      depart(departure_of(error.code), error.what());
      throw;
    }
  }
  depart_if_aborted();
}

void MeshSession::fail(const char* code, const std::string& message) {
  const std::lock_guard<std::mutex> lock(mesh_->mutex_);
  depart(departure_of(code), message);
}

void MeshSession::abort() {
  aborted_.store(true);
  mesh_->wake_.wake();
  depart_if_aborted();
}

// An exchange that holds the lock sees `aborted_`, or comes here once it has ended: one of the two tells the peers.
void MeshSession::depart_if_aborted() {
  if (!aborted_.load()) return;
  const std::unique_lock<std::mutex> lock(mesh_->mutex_, std::try_to_lock);
  if (lock.owns_lock()) depart(kClosed, "");
}

double MeshSession::take_wait_seconds() {
  const double seconds = wait_seconds_;
  wait_seconds_ = 0;
  return seconds;
}

bool MeshSession::is_sending(int node) const {
  const Transfer& p = transfers_[node];
  return link(node) != nullptr && (!p.has_staged || p.sends.left() > 0 || link(node)->has_unsent());
}

bool MeshSession::is_receiving(int node) const {
  const Transfer& p = transfers_[node];
  return link(node) != nullptr && (!p.has_received || p.receives.left() > 0);
}

void MeshSession::run(const HostExchange& exchange) {
  const int num_nodes = mesh_->num_nodes();
  check_still_wanted();
  for (int n = 0; n < num_nodes; n++)
    transfers_[n] = {PartsCursor<ConstPart>(exchange.sends[n]), PartsCursor<Part>(exchange.receives[n])};
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  auto spin_end = start + kSpin;
  const int64_t limit_ms = exchange.step < 0 ? options_.startup_timeout_ms : options_.step_timeout_ms;
  waiting_since_ = now_ms();
  for (;;) {
    bool is_done = true, any = false;
    for (int n = 0; n < num_nodes; n++) {
      if (!is_sending(n) && !is_receiving(n)) continue;
      any = go_on(n) || any;
      is_done = is_done && !is_sending(n) && !is_receiving(n);
    }
    if (is_done) break;
    check_still_wanted();
    if (any) {
      options_.progress.advance();
      spin_end = Clock::now() + kSpin;
      waiting_since_ = now_ms();
    } else if (Clock::now() < spin_end) {
      yield_processor();
    } else {
      const int64_t left_ms = waiting_since_ + limit_ms - now_ms();
      if (left_ms <= 0) give_up("ERR_STEP_TIMEOUT", story());
      options_.progress.wait(static_cast<Wait>(exchange.collective.kind), first_missing() * options_.ranks_per_node);
      poll_peers(left_ms);
    }
  }
  wait_seconds_ += std::chrono::duration<double>(Clock::now() - start).count();
}

// Sends and receives what can be without waiting. Returns whether any byte moved.
bool MeshSession::go_on(int node) {
  bool any = false;
  try {
    any = send_more(node);
  } catch (const Error&) {
    // What a peer sent before it left says why.
    while (receive_more(node)) {
    }
    throw Error("ERR_CLOSED", place_of(exchange_->step, exchange_->collective) + story() + " until " + node_name(node) +
                                  " closed the connection");
  }
  return receive_more(node) || any;
}

bool MeshSession::send_more(int node) {
  MeshLink& to = *link(node);
  Transfer& p = transfers_[node];
  bool any = false;
  for (;;) {
    if (to.has_unsent()) {
      any = to.flush() || any;
      if (to.has_unsent()) return any;
    }
    if (p.has_staged && p.sends.left() == 0) return any;
    stage_frame(node);
  }
}

void MeshSession::stage_frame(int node) {
  MeshLink& to = *link(node);
  Transfer& p = transfers_[node];
  const int64_t length = std::min(kFrameBytes, p.sends.left());
  p.sends.pass(length, [&](int64_t offset, const uint8_t* part, size_t bytes) {
    std::memcpy(to.payload() + offset, part, bytes);
  });
  p.has_staged = true;
  FrameHeader header{};
  header.length = static_cast<uint32_t>(length);
  header.kind = static_cast<uint32_t>(FrameKind::data);
  header.session = number_;
  header.step = exchange_->step;
  header.collective = exchange_->collective;
  header.total = static_cast<uint64_t>(p.sends.total());
  header.index = exchange_->index;
  to.stage(header);
}

// Reads while it only sends, too: a peer that leaves says so, and takes no more. What else would come then is a part of
// no exchange, since the peer's next one begins once it has all of this one.
bool MeshSession::receive_more(int node) {
  MeshLink& from = *link(node);
  bool any = false;
  while (is_receiving(node) || is_sending(node)) {
    try {
      if (from.front() == nullptr) {
        if (!from.fill()) break;
        any = true;
        continue;
      }
    } catch (const Error& error) {
      const bool is_lost = std::strcmp(error.code, "ERR_CLOSED") == 0;
      give_up(error.code, story() + " until " + (is_lost ? node_name(node) + ": " : "") + error.what());
    }
    take_frame(node);
    any = true;
  }
  return any;
}

// The front frame of a peer: of an earlier session, of this exchange, or of why the peer leaves.
void MeshSession::take_frame(int node) {
  MeshLink& from = *link(node);
  const FrameHeader& header = *from.front();
  Transfer& p = transfers_[node];
  if (header.session < number_) return from.pop();
  // It stays at the front, for a later session here.
  if (header.session > number_) give_up("ERR_CLOSED", story() + " until " + node_name(node) + " left");
  if (header.kind == static_cast<uint32_t>(FrameKind::departure)) {
    const std::string message(reinterpret_cast<const char*>(from.front_payload()), header.length);
    give_up(departure_code(header.departure), story() + " until " + node_name(node) + departure_verb(header.departure) +
                                                  (message.empty() ? "" : ": " + message));
  }
  const HostExchange& mine = *exchange_;
  if (!same_collective(header.collective, mine.collective) || header.index != mine.index || header.step != mine.step ||
      header.total != static_cast<uint64_t>(p.receives.total())) {
    const bool looks_same = describe(header.collective) == describe(mine.collective) && header.step == mine.step;
    give_up("ERR_MISMATCH", "Expected " + node_name(node) + " in the same collective but received " +
                                place_of(header.step, header.collective)
                                    .append(looks_same ? "spread differently over the ranks" : "another one"));
  }
  const int64_t expected = std::min(kFrameBytes, p.receives.left());
  if (header.length != static_cast<uint64_t>(expected))
    give_up("ERR_PROTOCOL", "Expected a frame of " + std::to_string(expected) + " bytes from " + node_name(node) +
                                " but received " + std::to_string(header.length));
  const uint8_t* payload = from.front_payload();
  p.receives.pass(
      expected, [payload](int64_t offset, uint8_t* part, size_t bytes) { std::memcpy(part, payload + offset, bytes); });
  p.has_received = true;
  from.pop();
}

void MeshSession::poll_peers(int64_t milliseconds) const {
  std::vector<pollfd> polled = {{mesh_->wake_.read_end(), POLLIN, 0}};
  for (int n = 0; n < mesh_->num_nodes(); n++) {
    if (link(n) == nullptr) continue;
    if (is_sending(n)) {
      polled.push_back({link(n)->fd(), POLLIN | POLLOUT, 0});
    } else if (is_receiving(n)) {
      polled.push_back({link(n)->fd(), POLLIN, 0});
    }
  }
  poll(polled.data(), static_cast<nfds_t>(polled.size()), static_cast<int>(std::min<int64_t>(milliseconds, 1 << 30)));
  if (polled[0].revents != 0) mesh_->wake_.drain();
}

void MeshSession::check_still_wanted() const {
  if (aborted_.load() || mesh_->aborted_.load() || departed_ || mesh_->session_ != number_)
    give_up("ERR_CLOSED",
            "the communicator of rank " + std::to_string(mesh_->node_rank() * options_.ranks_per_node) + " is closed");
}

void MeshSession::depart(Departure why, const std::string& message) {
  if (departed_) return;
  departed_ = true;
  FrameHeader header{};
  header.length = static_cast<uint32_t>(std::min(message.size(), kMaxMessage));
  header.kind = static_cast<uint32_t>(FrameKind::departure);
  header.session = number_;
  header.step = exchange_ == nullptr ? -1 : exchange_->step;
  header.departure = why;
  const int64_t deadline = now_ms() + kDepartureMs;
  for (int n = 0; n < mesh_->num_nodes(); n++) {
    if (link(n) == nullptr) continue;
    // A frame that was begun ends first: the peer could not tell its rest from the next one.
    try {
      for (bool has_staged = false; link(n)->has_unsent() || !has_staged;) {
        if (!link(n)->has_unsent()) {
          std::memcpy(link(n)->payload(), message.data(), header.length);
          link(n)->stage(header);
          has_staged = true;
        }
        if (link(n)->flush()) continue;
        pollfd polled{link(n)->fd(), POLLOUT, 0};
        const int64_t left_ms = deadline - now_ms();
        if (left_ms <= 0) break;
        poll(&polled, 1, static_cast<int>(left_ms));
      }
    } catch (const Error&) {
      // It is gone, and needs no word.
    }
  }
}

void MeshSession::give_up(const char* code, const std::string& message) const {
  const std::string place = exchange_ == nullptr ? "" : place_of(exchange_->step, exchange_->collective);
  throw Error(code, place + message);
}

std::string MeshSession::node_name(int node) const {
  const int first = node * options_.ranks_per_node, last = first + options_.ranks_per_node - 1;
  const std::string ranks =
      first == last ? "rank " + std::to_string(first) : "ranks " + std::to_string(first) + "-" + std::to_string(last);
  return ranks + " (node " + std::to_string(node) + ", " + mesh_->addresses_[node] + ")";
}

std::string MeshSession::missing() const {
  std::string names;
  for (int n = 0; n < mesh_->num_nodes(); n++) {
    if (is_receiving(n) || is_sending(n)) names += (names.empty() ? "" : ", ") + node_name(n);
  }
  return names;
}

int MeshSession::first_missing() const {
  int node = 0;
  while (!is_receiving(node) && !is_sending(node)) node++;
  return node;
}

std::string MeshSession::story() const {
  return "rank " + std::to_string(mesh_->node_rank() * options_.ranks_per_node) + " waited " +
         seconds_text(now_ms() - waiting_since_) + " s for " + missing();
}

}  // namespace nds::comm
