// The operators of one instruction set, defined by the files that are compiled once per set; kernels.h explains them.
#pragma once
#include <cstdint>

#include "cpu/kernels.h"

#ifndef NDS_ISA_NAMESPACE
#error "isa_ops.h is for files that are compiled once per instruction set (*.isa.cc)"
#endif

namespace nds::cpu::NDS_ISA_NAMESPACE {

bool pack_linear(const PackArgs& args, int tid, int num_threads);
bool pack_quantized(const PackArgs& args, int tid, int num_threads);
int64_t quantized_row_bytes(const PackedLinear& w);
void quantize_rows(const QuantizeArgs& args, int tid, int num_threads);
int64_t linear_scratch_bytes(const PackedLinear& w);
void linear(const LinearArgs& args, int tid, int num_threads);
void linear_silu_mul(const LinearSiluMulArgs& args, int tid, int num_threads);
void rms_norm(const RmsNormArgs& args, int tid, int num_threads);
void head_norm(const HeadNormArgs& args, int tid, int num_threads);
void rope_table(const RopeTableArgs& args, int tid, int num_threads);
void rope_and_store(const RopeAndStoreArgs& args, int tid, int num_threads);
void paged_attention(const AttentionArgs& args, int tid, int num_threads);
int64_t attention_scratch_bytes(const KvView& kv);
void silu_mul(const SiluMulArgs& args, int tid, int num_threads);
void add(const AddArgs& args, int tid, int num_threads);
void embedding(const EmbeddingArgs& args, int tid, int num_threads);
void join(const JoinArgs& args);

Candidate sample_row(const float* logits, int n, int first_id, const SampleParams& params);
Candidate sample_filtered_row(const float* logits, int n, const SampleParams& params, uint8_t* scratch,
                              const Team& team);
int64_t filter_scratch_bytes(int n, int num_threads);
Distribution distribution(const float* logits, int n, const SampleParams& params, uint8_t* scratch, int32_t* ids,
                          uint64_t* masses, const Team& team);
int32_t draw(const Distribution& from, const SampleParams& address, uint8_t* scratch, const Team& team);
Accepted accept_drafts(const AcceptArgs& args, uint8_t* scratch, const Team& team);
int64_t accept_scratch_bytes(int num_threads);
int32_t log_probabilities(const LogprobArgs& args);
float probe_read(const uint8_t* data, int64_t bytes);
double probe_multiply_add(int64_t rounds, float* sink);
double probe_int8(int64_t rounds, float* sink);
void test_map(LaneFunction function, const float* x, int64_t count, float* y);
void test_philox(const uint32_t counter[4], uint64_t key, uint32_t words[4]);

extern const Kernels kernel_table;

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
