// A rank's share of a model on one device, as the host logic of a step drives it: all that a backend implements whose
// steps the host drives.
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

// Whether a model notes its operators, and the number of the first: a draft's come after those of the model that it
// drafts for.
struct OpTrace {
  bool is_on = false;
  int first_op = 0;
};

// The ranks of a model call its members alike and in the same order.
class DeviceModel {
 public:
  virtual ~DeviceModel() = default;
  virtual const ProgramSpec& program() const = 0;
  virtual LoadReport report() const = 0;

  // Copies the pass's blocks, then runs the operators. Every row that samples has a token after (LogitRow::sampled):
  // the arg-max of its logits with the noise of its position. Two kinds of row that a rule judges by distributions
  // differ: in a draft's pass the distribution is added to the sequence's proposal and the token drawn from it, with
  // the noise of the round; beside drafts the token is left to judge(). Rows to give back go to result.logits, and to
  // result.trace each operator where tracing is on.
  // @throws Error what failed first; the model must not be used again.
  virtual void run(Pass& pass, StepResult& result) = 0;
  // How many drafts are accepted of a sequence of the pass that ran last, by the rule of the pass and the distributions
  // of the drafts and of the K + 1 logit rows from first_row on, and the token after them.
  virtual Accepted judge(const Pass& pass, int first_row) = 0;
  // Of the pass that ran last: the entries of pass.logprob_rows in the result, from raw logits; on rank 0 alone.
  virtual void log_probabilities(const Pass& pass, StepResult& result) = 0;
};

// Loads a program; the ranks of the communicator, which outlives the model, meet inside.
using MakeModel = std::function<std::unique_ptr<DeviceModel>(ProgramSpec, comm::Communicator&, const OpTrace&)>;

}  // namespace nds
