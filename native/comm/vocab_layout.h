// Which rows of the embedding and which logits each rank holds: in rank order, all of the vocabulary.
#pragma once
#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "core/program/program.h"

namespace nds::comm {

struct VocabLayout {
  std::vector<int32_t> first_row, num_rows;  // [world_size] of the embedding
  std::vector<int32_t> num_ids;              // [world_size] of the LM head

  // The rank that has the embedding of a token.
  int owner(int32_t token_id) const {
    int rank = 0;
    while (token_id >= first_row[rank] + num_rows[rank]) rank++;
    return rank;
  }
};

// The ranks meet inside. @throws Error ERR_MISMATCH where the parts do not make up the vocabulary.
VocabLayout exchange_vocab_layout(const ProgramSpec& program, Communicator& comm);

}  // namespace nds::comm
