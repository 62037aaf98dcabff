// Embedding rows and logits that each rank holds: in rank order they make up the vocabulary.
#pragma once
#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "core/program/program.h"

namespace nds::comm {

struct VocabLayout {
  std::vector<int32_t> first_row, num_rows;  // [world_size] embedding rows
  std::vector<int32_t> num_ids;              // [world_size] logits

  // Rank that holds the embedding of a token.
  int owner(int32_t token_id) const {
    int rank = 0;
    while (token_id >= first_row[rank] + num_rows[rank]) rank++;
    return rank;
  }
};

// Collective. @throws Error ERR_MISMATCH unless the ranks' parts make up the vocabulary.
VocabLayout exchange_vocab_layout(const ProgramSpec& program, Communicator& comm);

}  // namespace nds::comm
