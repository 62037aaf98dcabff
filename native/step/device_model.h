// A rank's share of a model on one device: the interface that a backend implements if the host drives its steps.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

#include "comm/communicator.h"
#include "core/backend.h"
#include "core/plan/step_result.h"
#include "core/program/program.h"
#include "step/accept.h"
#include "step/pass.h"

namespace nds {

// Whether a model traces its operators, the number of its first one, and where it tells which one runs. A draft's
// operators are numbered after those of its target.
struct OpTrace {
  bool is_on = false;
  int first_op = 0;
  Progress progress = {};
};

// The ranks of a model make the same calls in the same order.
class DeviceModel {
 public:
  virtual ~DeviceModel() = default;
  virtual const ProgramSpec& program() const = 0;
  virtual LoadReport report() const = 0;

  // Copies the pass's blocks, then runs the operators. Sets LogitRow::sampled of every row that samples to the arg-max
  // of its logits with the noise of its position. Rows that a rule judges by distributions (Pass::is_judged) differ. A
  // draft's pass adds the row's distribution to the sequence's proposal and draws the token from it with the noise of
  // the round. The target's pass leaves the token to judge().
  // Rows to give back go to result.logits. If tracing is on, each operator goes to result.trace.
  // @throws Error the first failure; the model must not be used again.
  virtual void run(Pass& pass, StepResult& result) = 0;
  // Number of accepted drafts of one sequence of the last pass, and the token after them. Decided by the rule of the
  // pass, the distributions of the drafts and those of the K + 1 logit rows from first_row on.
  virtual Accepted judge(const Pass& pass, int first_row) = 0;
  // Log-probabilities of the last pass, from raw logits: fills the result's entries of pass.logprob_rows, on rank 0
  // only.
  virtual void log_probabilities(const Pass& pass, StepResult& result) = 0;
};

// Loads a program. Collective over the ranks of the communicator, which must outlive the model.
using MakeModel = std::function<std::unique_ptr<DeviceModel>(ProgramSpec, comm::Communicator&, const OpTrace&)>;

}  // namespace nds
