// The operator table of this instruction set.
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/isa_traits.h"

#define NDS_STRINGIFY_(x) #x
#define NDS_STRINGIFY(x) NDS_STRINGIFY_(x)

namespace nds::cpu::NDS_ISA_NAMESPACE {

const Kernels kernel_table = {
    NDS_STRINGIFY(NDS_ISA_NAMESPACE),
    NDS_BF16_DOT,
    pack_linear,
    quantized_row_bytes,
    quantize_rows,
    linear_scratch_bytes,
    linear,
    linear_silu_mul,
    rms_norm,
    head_norm,
    rope_table,
    rope_and_store,
    paged_attention,
    attention_scratch_bytes,
    silu_mul,
    add,
    embedding,
    join,
    sample_row,
    sample_filtered_row,
    filter_scratch_bytes,
    distribution,
    draw,
    accept_drafts,
    accept_scratch_bytes,
    log_probabilities,
    probe_read,
    probe_multiply_add,
    probe_int8,
    test_map,
    test_philox,
};

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
