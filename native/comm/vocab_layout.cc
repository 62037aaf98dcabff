// Embedding rows and logits that each rank holds.
#include "comm/vocab_layout.h"

#include <string>

#include "core/error.h"

namespace nds::comm {

VocabLayout exchange_vocab_layout(const ProgramSpec& program, Communicator& comm) {
  const int world_size = comm.world_size();
  int32_t mine[4] = {0, 0, 0, 0};
  for (const OpSpec& op : program.ops) {
    if (op.kind == OpKind::embedding) {
      const WeightSpec& table = program.weights[op.weight];
      mine[0] = static_cast<int32_t>(table.first_row);
      mine[1] = static_cast<int32_t>(table.pieces[0].num_rows());
    }
    if (op.kind == OpKind::sample) {
      mine[2] = op.first_token_id;
      mine[3] = op.num_token_ids;
    }
  }
  std::vector<int32_t> all(static_cast<size_t>(world_size) * 4);
  const std::vector<int64_t> counts(world_size, sizeof(mine));
  comm.all_gather(mine, counts.data(), all.data());
  VocabLayout layout;
  int64_t next_row = 0, next_id = 0;
  for (int r = 0; r < world_size; r++) {
    const int32_t* theirs = all.data() + r * 4;
    if (theirs[0] != next_row || theirs[2] != next_id) {
      throw Error("ERR_MISMATCH", "Expected rank " + std::to_string(r) + " to hold embeddings from " +
                                      std::to_string(next_row) + " and logits from " + std::to_string(next_id) +
                                      " on but received " + std::to_string(theirs[0]) + " and " +
                                      std::to_string(theirs[2]));
    }
    next_row += theirs[1];
    next_id += theirs[3];
    layout.first_row.push_back(theirs[0]);
    layout.num_rows.push_back(theirs[1]);
    layout.num_ids.push_back(theirs[3]);
  }
  if (next_row != program.vocab_size || next_id != program.vocab_size) {
    throw Error("ERR_MISMATCH", "Expected " + std::to_string(program.vocab_size) +
                                    " embeddings and logits on all ranks but received " + std::to_string(next_row) +
                                    " and " + std::to_string(next_id));
  }
  return layout;
}

}  // namespace nds::comm
