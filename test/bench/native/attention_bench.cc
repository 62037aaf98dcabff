// Times decode attention over long contexts with each kind of KV cache, alternating, and a pure read of the same number
// of bytes. On a shared machine only the shares and ratios are meaningful.
//
// Usage: attention_bench [threads] [heads] [kv heads] [head dim] [layers] [context,context,...] [queries] [repetitions]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/memory.h"
#include "cpu/kernels.h"
#include "cpu/kv_view.h"
#include "cpu/thread_pool.h"
#include "timing.h"

namespace nds::cpu {
namespace {

struct Options {
  int num_threads, num_heads, num_kv_heads, head_dim, num_layers;
  std::vector<int> contexts;
  int num_queries, repetitions;
};

struct CacheKind {
  const char* name;
  DType dtype;
  KvDtype kv_dtype;
};
constexpr CacheKind kKinds[] = {{"bf16", DType::bf16, KvDtype::activation},
                                {"int8 (bf16 activations)", DType::bf16, KvDtype::int8},
                                {"fp32", DType::f32, KvDtype::activation},
                                {"bf16 (fp32 activations)", DType::f32, KvDtype::bf16},
                                {"int8 (fp32 activations)", DType::f32, KvDtype::int8}};

// One sequence of `context` tokens whose blocks lie in random order.
class Cache {
 public:
  Cache(const Options& options, const CacheKind& kind, int context) : options_(options), context_(context) {
    const int num_blocks = (context + kRun - 1) / kRun;
    view_ = plan_kv({options.num_layers, num_blocks, kRun, options.num_kv_heads, options.head_dim, kind.kv_dtype},
                    kind.dtype);
    memory_ = HugeMemory(static_cast<size_t>(view_.block_stride * num_blocks), "bench cache");
    std::memset(memory_.data(), 0, memory_.size());
    for (int i = 0; i < num_blocks; i++) blocks_.push_back(i);
    std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(1));
    const size_t bytes = static_cast<size_t>(options.num_queries) * options.num_heads * options.head_dim * 4;
    q_ = HugeMemory(bytes, "bench queries");
    out_ = HugeMemory(bytes, "bench outputs");
  }

  int64_t bytes() const { return static_cast<int64_t>(memory_.size()); }

  void attend(const Kernels& kernels, ThreadPool& pool) {
    const int64_t scratch_bytes = kernels.attention_scratch_bytes(view_);
    if (scratch_.size() == 0) scratch_ = HugeMemory(static_cast<size_t>(scratch_bytes * pool.size()), "bench scratch");
    const int32_t cu_query_lens[2] = {0, options_.num_queries}, context_lens[1] = {context_};
    const int32_t cu_blocks[2] = {0, static_cast<int32_t>(blocks_.size())};
    const int64_t ld = int64_t{options_.num_heads} * options_.head_dim;
    pool.run([&](int tid) {
      for (int layer = 0; layer < options_.num_layers; layer++) {
        KvView view = view_;
        view.base = memory_.data() + layer * view.tile_bytes * view.num_kv_heads;
        const AttentionArgs args{.q = q_.data(),
                                 .ldq = ld,
                                 .num_seqs = 1,
                                 .cu_query_lens = cu_query_lens,
                                 .context_lens = context_lens,
                                 .block_tables = blocks_.data(),
                                 .first_blocks = cu_blocks,
                                 .kv = view,
                                 .num_heads = options_.num_heads,
                                 .first_head = 0,
                                 .group_size = options_.num_heads / options_.num_kv_heads,
                                 .first_kv_head = 0,
                                 .scale = 0.1f,
                                 .sliding_window = 0,
                                 .out = out_.data(),
                                 .ld_out = ld,
                                 .scratch = scratch_.data()};
        kernels.paged_attention(args, tid, pool.size());
        pool.barrier();
      }
    });
  }

  void read(const Kernels& kernels, ThreadPool& pool, std::vector<float>& sinks) {
    pool.run([&](int tid) {
      const int64_t lines = bytes() / 64, begin = lines * tid / pool.size() * 64,
                    end = lines * (tid + 1) / pool.size() * 64;
      sinks[tid * 32] += kernels.probe_read(memory_.data() + begin, end - begin);
    });
  }

 private:
  const Options& options_;
  int context_;
  KvView view_;
  HugeMemory memory_, q_, out_, scratch_;
  std::vector<int32_t> blocks_;
};

std::vector<int> first_cores(int count) {
  std::vector<int> cores = allowed_cores();
  if (static_cast<int>(cores.size()) < count) return {};
  cores.resize(count);
  return cores;
}

void run(const Options& options, const Kernels& kernels) {
  ThreadPool pool(options.num_threads, first_cores(options.num_threads));
  std::vector<float> sinks(options.num_threads * 32);
  constexpr size_t kNumKinds = sizeof(kKinds) / sizeof(kKinds[0]);
  for (const int context : options.contexts) {
    std::vector<Cache> caches;
    for (const CacheKind& kind : kKinds) caches.emplace_back(options, kind, context);
    std::vector<std::vector<double>> times(kNumKinds), shares(kNumKinds), ratios(kNumKinds);
    for (int i = 0; i <= options.repetitions; i++) {
      double bf16 = 0;
      for (size_t k = 0; k < kNumKinds; k++) {
        const double read = seconds([&] { caches[k].read(kernels, pool, sinks); });
        const double time = seconds([&] { caches[k].attend(kernels, pool); });
        if (k == 0) bf16 = time;
        if (i == 0) continue;
        times[k].push_back(time);
        shares[k].push_back(read / time);
        ratios[k].push_back(bf16 / time);
      }
    }
    for (size_t k = 0; k < kNumKinds; k++) {
      std::printf("%s, context %5d, %-24s %8.3f ms, %5.1f GB/s = %.2f of a pure read, %.2f x bf16\n", kernels.name,
                  context, kKinds[k].name, median(times[k]) * 1e3,
                  static_cast<double>(caches[k].bytes()) / median(times[k]) / 1e9, median(shares[k]),
                  median(ratios[k]));
    }
  }
}

Options parse(int argc, char** argv) {
  const auto number = [&](int i, int otherwise) { return argc > i ? std::atoi(argv[i]) : otherwise; };
  Options options{number(1, 2), number(2, 16), number(3, 8), number(4, 128), number(5, 28),
                  {},           number(7, 1),  number(8, 7)};
  const std::string contexts = argc > 6 ? argv[6] : "2048,8192";
  for (size_t i = 0; i < contexts.size();
       i = contexts.find(',', i) == std::string::npos ? contexts.size() : contexts.find(',', i) + 1)
    options.contexts.push_back(std::atoi(contexts.c_str() + i));
  return options;
}

}  // namespace
}  // namespace nds::cpu

int main(int argc, char** argv) {
  const nds::cpu::Options options = nds::cpu::parse(argc, argv);
  const nds::cpu::IsaList& isas = nds::cpu::available_isas();
  const char* only = std::getenv("NDS_ISA");
  for (int i = 0; i < isas.count; i++) {
    if (only == nullptr ? i == 0 : std::string(only) == isas.tables[i]->name) nds::cpu::run(options, *isas.tables[i]);
  }
}
