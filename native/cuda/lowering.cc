// From a recorded program to the launches of a device.
#include "cuda/lowering.h"

#include <string>

#include "core/error.h"

namespace nds::cuda {
namespace {

class Lowering {
 public:
  Lowering(const ProgramSpec& program, int world_size) : program_(program), world_size_(world_size) {
    const int num_values = static_cast<int>(program.values.size());
    last_read_.assign(num_values, -1);
    num_reads_.assign(num_values, 0);
    for (int v = 0; v < num_values; v++) result_.storage_of.push_back(v);
    for (int i = 0; i < num_ops(); i++) {
      for (const int value : {program.ops[i].x, program.ops[i].b}) {
        if (value == kNone) continue;
        last_read_[value] = i;
        num_reads_[value]++;
      }
    }
  }

  Lowered run() {
    for (next_ = 0; next_ < num_ops(); next_++) lower_op(program_.ops[next_]);
    if (norm_ != kNone) unsupported(norm_, "a headNorm before the ropeAndStore of its value");
    result_.is_written.assign(program_.values.size(), false);
    for (const Launch& launch : result_.launches) note_use(launch);
    return std::move(result_);
  }

 private:
  int num_ops() const { return static_cast<int>(program_.ops.size()); }
  const OpSpec* peek(int ahead) const { return next_ + ahead < num_ops() ? &program_.ops[next_ + ahead] : nullptr; }
  int storage(int value) const { return value == kNone ? kNone : result_.storage_of[value]; }

  void lower_op(const OpSpec& op) {
    if (norm_ != kNone && op.kind != OpKind::rope_and_store)
      unsupported(norm_, "a headNorm right before the ropeAndStore of its value");
    switch (op.kind) {
      case OpKind::embedding:
        return emit(LaunchKind::embedding, op);
      case OpKind::rms_norm:
        return emit(LaunchKind::rms_norm, op);
      case OpKind::linear:
        return linear(op);
      case OpKind::all_reduce:
        return all_reduce(op);
      case OpKind::head_norm:
        norm_ = next_;
        return;
      case OpKind::rope_and_store: {
        if (norm_ != kNone && program_.ops[norm_].x != op.x) unsupported(norm_, "a headNorm of the value that rotates");
        Launch& launch = emit_launch(LaunchKind::rope_and_store, op);
        launch.norm = norm_;
        norm_ = kNone;
        return;
      }
      case OpKind::paged_attention:
        return emit(LaunchKind::paged_attention, op);
      case OpKind::silu_mul:
        return emit(LaunchKind::silu_mul, op);
      case OpKind::add:
        return add(op);
      case OpKind::hidden_states:
        return;  // no kernel: launch() refuses plans that ask for them
      case OpKind::gather_rows:
        return emit(LaunchKind::gather_rows, op);
      case OpKind::sample:
        return emit(LaunchKind::sample, op);
    }
  }

  // Fuses silu_mul into the product of gate and up. At world size 1, fuses the bias of the allReduce and the residual
  // add into a row-parallel product.
  void linear(const OpSpec& op) {
    Launch& launch = emit_launch(LaunchKind::linear, op);
    launch.bias = op.bias;
    const OpSpec* next = peek(1);
    if (next != nullptr && can_run_as_one(op, *next, num_reads_[op.out])) {
      launch.result = LinearResult::silu_mul;
      launch.silu = next_ + 1;
      launch.out = storage(next->out);
      next_++;
      return;
    }
    if (!op.partial || world_size_ > 1) return;
    if (next == nullptr || next->kind != OpKind::all_reduce || next->x != op.out)
      unsupported(next_, "an allReduce right after its partial sums");
    launch.bias = next->bias;
    const OpSpec* after = peek(2);
    const int sum = next->out;
    launch.out = storage(sum);
    next_++;
    const int other = after == nullptr || after->kind != OpKind::add ? kNone
                      : after->b == sum                              ? after->x
                      : after->x == sum                              ? after->b
                                                                     : kNone;
    if (other == kNone || num_reads_[sum] != 1 || last_read_[other] != next_ + 1) return;
    launch.result = LinearResult::add;
    launch.out = storage(other);
    result_.storage_of[after->out] = storage(other);
    next_++;
  }

  void all_reduce(const OpSpec& op) {
    Launch& launch = emit_launch(LaunchKind::all_reduce, op);
    launch.bias = op.bias;
  }

  // In place where op.x is not read later; then also fused into the rms_norm that reads the sum next.
  void add(const OpSpec& op) {
    const bool in_place = last_read_[op.x] == next_ && storage(op.x) != storage(op.b);
    if (in_place) result_.storage_of[op.out] = storage(op.x);
    const OpSpec* next = peek(1);
    if (in_place && next != nullptr && next->kind == OpKind::rms_norm && next->x == op.out) {
      const int addend = storage(op.b);
      next_++;
      Launch& launch = emit_launch(LaunchKind::rms_norm, *next);
      launch.b = addend;
      return;
    }
    emit(LaunchKind::add, op);
  }

  void emit(LaunchKind kind, const OpSpec& op) { emit_launch(kind, op); }

  Launch& emit_launch(LaunchKind kind, const OpSpec& op) {
    Launch launch;
    launch.kind = kind;
    launch.op = next_;
    launch.x = storage(op.x);
    launch.b = storage(op.b);
    launch.out = storage(op.out);
    return result_.launches.emplace_back(launch);
  }

  // An output that holds a value already is accumulated into: it counts as read, not as written again.
  void note_use(const Launch& launch) {
    ValueUse& use = result_.uses.emplace_back();
    for (const int value : {launch.x, launch.b}) {
      if (value != kNone) use.reads.push_back(value);
    }
    if (launch.out == kNone) return;
    if (result_.is_written[launch.out]) {
      use.reads.push_back(launch.out);
    } else {
      use.write = launch.out;
      result_.is_written[launch.out] = true;
    }
  }

  [[noreturn]] void unsupported(int op, const std::string& expected) const {
    throw Error("ERR_UNSUPPORTED",
                "Expected " + expected + " on CUDA but received another order at operator " + std::to_string(op));
  }

  const ProgramSpec& program_;
  const int world_size_;
  std::vector<int> last_read_, num_reads_;
  Lowered result_;
  int next_ = 0, norm_ = kNone;
};

}  // namespace

Lowered lower(const ProgramSpec& program, int world_size) { return Lowering(program, world_size).run(); }

}  // namespace nds::cuda
