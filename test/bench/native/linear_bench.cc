// Times `linear` over every matrix of a Qwen3-0.6B-shaped model, and the machine's limits at the same moment: a pure
// read of the same bytes, and peak multiply-adds. On a shared machine only the shares are meaningful.
//
// With several instruction sets, separated by commas, each repetition runs all of them in turn, and the others are
// compared with the last. Their packed weights must have one layout.
//
// Usage: linear_bench [threads] [isa,isa,...] [format: bf16 | f16 | f32 | int8 | int8_zero | int4 | int4_zero | fp8]
//   [activations: bf16 | f32] [rows,rows,...] [repetitions]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/memory.h"
#include "core/program/reduction_tree.h"
#include "cpu/kernels.h"
#include "cpu/thread_pool.h"
#include "timing.h"

namespace nds::cpu {
namespace {

struct Shape {
  int n, k, num_chunks;
};

struct Options {
  int num_threads;
  std::vector<const Kernels*> isas;
  WeightFormat format;
  DType x_dtype;
  std::vector<int> rows;
  int repetitions;
};

std::vector<Shape> model_shapes() {
  std::vector<Shape> shapes;
  for (int layer = 0; layer < 28; layer++) {
    shapes.insert(shapes.end(), {{4096, 1024, 4}, {1024, 2048, 16}, {6144, 1024, 4}, {1024, 3072, 16}});
  }
  shapes.push_back({151936, 1024, 4});
  return shapes;
}

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        kernels_(options.isas[0]),
        pool_(options.num_threads, first_cores(options.num_threads)),
        sinks_(options.num_threads * 32) {
    int64_t total = 0;
    int max_k = 0;
    for (const Shape& shape : model_shapes()) {
      std::vector<int> edges;
      for (int c = 0; c <= shape.num_chunks; c++) edges.push_back(shape.k / shape.num_chunks * c);
      linears_.push_back(plan_packed_linear(options.format, (shape.n + kPanel - 1) / kPanel, edges, 0, shape.num_chunks,
                                            nullptr, {128, 0}));
      total += linears_.back().panel_bytes * linears_.back().num_panels;
      max_n_ = std::max(max_n_, shape.n);
      max_k = std::max(max_k, shape.k);
    }
    weights_ = HugeMemory(static_cast<size_t>(total), "bench weights");
    source_ = HugeMemory(static_cast<size_t>(max_n_) * 1024 * dtype_size(row_dtype(options.format)), "bench source");
    std::memset(source_.data(), 0, source_.size());
    int64_t offset = 0;
    for (PackedLinear& linear : linears_) {
      linear.data = weights_.data() + offset;
      offset += linear.panel_bytes * linear.num_panels;
    }
    const int max_rows = *std::max_element(options.rows.begin(), options.rows.end());
    x_ = HugeMemory(static_cast<size_t>(max_rows) * (max_k + 32) * 4, "bench activations");
    int64_t row_bytes = 0;
    for (const Kernels* isa : options.isas) {
      for (const PackedLinear& linear : linears_) row_bytes = std::max(row_bytes, isa->quantized_row_bytes(linear));
    }
    quantized_ = HugeMemory(static_cast<size_t>(max_rows * row_bytes), "bench activations");
    int64_t scratch_bytes = 0;
    for (const PackedLinear& linear : linears_)
      scratch_bytes = std::max(scratch_bytes, kernels_->linear_scratch_bytes(linear));
    scratch_ = HugeMemory(static_cast<size_t>(scratch_bytes * options.num_threads), "bench weights");
    y_ = HugeMemory(static_cast<size_t>(std::min(max_rows, 32)) * max_n_ * 4 + static_cast<size_t>(max_rows) * 8192 * 4,
                    "bench outputs");
  }

  void pack() {
    if (options_.format == WeightFormat::fp8) return fill_fp8();
    const bool has_zeros = options_.format == WeightFormat::int8_zero || options_.format == WeightFormat::int4_zero;
    if (has_zeros) return fill_integers();
    for (int round = 0; round < 2; round++) {
      const double time = seconds([&] {
        pool_.run([&](int tid) {
          for (PackedLinear& linear : linears_) {
            kernels_->pack_linear({.w = &linear,
                                   .src = source_.data(),
                                   .src_ld = linear.k,
                                   .num_rows = linear.num_panels * kPanel,
                                   .first_panel = 0},
                                  tid, pool_.size());
            pool_.barrier();
          }
        });
      });
      std::printf("pack %.2f GB in %.2f s%s\n", static_cast<double>(weights_.size()) / 1e9, time,
                  round == 0 ? " (fresh pages)" : "");
    }
  }

  void run() {
    for (const int rows : options_.rows) {
      double flops = 0;
      for (const PackedLinear& linear : linears_)
        flops += 2.0 * rows_of(linear, rows) * linear.num_panels * kPanel * linear.k;
      std::vector<Figures> figures(options_.isas.size());
      for (int i = 0; i < options_.repetitions; i++) {
        const double read = seconds([&] { read_weights(); });
        for (size_t isa = 0; isa < options_.isas.size(); isa++) {
          kernels_ = options_.isas[isa];
          const double most = peak(), time = seconds([&] { multiply(rows); });
          figures[isa].times.push_back(time);
          figures[isa].read_shares.push_back(read / time);
          figures[isa].peak_shares.push_back(flops / time / most);
        }
      }
      for (size_t isa = 0; isa < figures.size(); isa++) print(isa, rows, flops, figures);
    }
  }

  // Time of `rows` rows ÷ time of one row, measured alternately.
  void ratio(int rows) {
    std::vector<double> ratios;
    for (int i = 0; i < options_.repetitions; i++) {
      const double one = seconds([&] { multiply(1); });
      ratios.push_back(seconds([&] { multiply(rows); }) / one);
    }
    std::printf("rows %d / rows 1: %.2f\n", rows, median(ratios));
  }

 private:
  // Codes of normal weights, the largest of which is about 448, under blocks of one scale.
  void fill_fp8() {
    std::vector<uint8_t> codes(1 << 16);
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 110);
    for (uint8_t& code : codes) {
      const float value = std::min(448.0f, std::fabs(normal(random)));
      int exponent = 0;
      const float fraction = std::frexp(value, &exponent);  // 0.5 … 1
      const int magnitude =
          exponent < -5 ? static_cast<int>(value * 512) : (exponent + 6) * 8 + static_cast<int>(fraction * 16) - 8;
      code = static_cast<uint8_t>(magnitude | (random() % 2) << 7);
    }
    for (const PackedLinear& linear : linears_) {
      for (int p = 0; p < linear.num_panels; p++) {
        uint8_t* const panel = linear.data + p * linear.panel_bytes;
        for (int64_t i = 0; i < linear.decoded_bytes / 2; i++) panel[i] = codes[(i + p * 997) % codes.size()];
        for (int64_t i = linear.decoded_bytes / 2; i < linear.panel_bytes; i += 4) {
          const float scale = 0x1p110f;
          std::memcpy(panel + i, &scale, 4);
        }
      }
    }
  }

  // Integers of any value, zero points in the middle, and one scale.
  void fill_integers() {
    std::vector<uint8_t> codes(1 << 16);
    std::mt19937 random(1);
    for (uint8_t& code : codes) code = static_cast<uint8_t>(random());
    const bool is_8bit = is_int8(options_.format);
    const uint16_t scale = 0x2c00;                 // fp16(2^-4)
    const uint16_t zero = is_8bit ? 128 : 0x0808;  // two bytes: one zero point, or two
    std::vector<uint8_t> tail(kPanel * 2, 0);
    for (int i = 0; i < kPanel; i++) std::memcpy(tail.data() + i * 2, &scale, 2);
    tail.resize(linears_[0].tail_bytes);
    for (size_t i = kPanel * 2; i < tail.size(); i += 2) std::memcpy(tail.data() + i, &zero, 2);
    const int64_t tile_bytes = is_8bit ? 1024 : 512;
    for (const PackedLinear& linear : linears_) {
      for (int p = 0; p < linear.num_panels; p++) {
        uint8_t* out = linear.data + p * linear.panel_bytes;
        for (int c = 0; c < linear.num_chunks; c++) {
          for (int left = linear.chunks[c].k_len; left > 0; left -= linear.group) {
            const int64_t size = tile_bytes * ((std::min(left, linear.group) + kTile - 1) / kTile);
            std::memcpy(out, codes.data() + random() % (codes.size() - size), size);
            std::memcpy(out + size, tail.data(), tail.size());
            out += size + linear.tail_bytes;
          }
        }
      }
    }
  }

  struct Figures {
    std::vector<double> times, read_shares, peak_shares;
  };

  void print(size_t isa, int rows, double flops, const std::vector<Figures>& figures) const {
    const std::vector<double>&times = figures[isa].times, &last = figures.back().times;
    std::vector<double> multiples;
    for (size_t i = 0; i < times.size(); i++) multiples.push_back(last[i] / times[i]);
    std::printf("%-12s rows %4d: %8.2f ms, %6.1f GB/s = %.2f of a pure read, %7.1f GFLOP/s = %.2f of peak",
                options_.isas[isa]->name, rows, median(times) * 1e3,
                static_cast<double>(weights_.size()) / median(times) / 1e9, median(figures[isa].read_shares),
                flops / median(times) / 1e9, median(figures[isa].peak_shares));
    if (isa + 1 < figures.size()) std::printf(", %.2f x %s", median(multiples), options_.isas.back()->name);
    std::printf("\n");
    std::fflush(stdout);
  }

  static std::vector<int> first_cores(int count) {
    std::vector<int> cores = allowed_cores();
    if (static_cast<int>(cores.size()) < count) return {};
    cores.resize(count);
    return cores;
  }

  // A row stride of an odd multiple of 128 bytes, as powers of two map to the same cache sets.
  static int64_t stride_of(const PackedLinear& linear) { return linear.k / 32 % 2 == 0 ? linear.k + 32 : linear.k; }

  // The LM head runs for sampled rows only, at most 32.
  int rows_of(const PackedLinear& linear, int rows) const {
    return linear.num_panels * kPanel > 8192 ? std::min(rows, 32) : rows;
  }

  void multiply(int rows) {
    pool_.run([&](int tid) {
      for (const PackedLinear& linear : linears_) {
        const int64_t width = linear.num_panels * kPanel;
        const int m = rows_of(linear, rows);
        const bool is_int = is_quantized(options_.format);
        if (is_int) {
          kernels_->quantize_rows({.x = x_.data(),
                                   .ldx = stride_of(linear),
                                   .x_dtype = options_.x_dtype,
                                   .rows = m,
                                   .w = &linear,
                                   .out = quantized_.data()},
                                  tid, pool_.size());
          pool_.barrier();
        }
        const LinearArgs args{.x = is_int ? quantized_.data() : x_.data(),
                              .ldx = is_int ? kernels_->quantized_row_bytes(linear) : stride_of(linear),
                              .x_dtype = options_.x_dtype,
                              .m = m,
                              .w = &linear,
                              .bias = nullptr,
                              .y = reinterpret_cast<float*>(y_.data()),
                              .ldy = width,
                              .root_stride = 0,
                              .scratch = scratch_.data()};
        kernels_->linear(args, tid, pool_.size());
        pool_.barrier();
      }
    });
  }

  // Reads the bytes that `multiply` reads, with the same threads.
  void read_weights() {
    pool_.run([&](int tid) {
      for (const PackedLinear& linear : linears_) {
        const int64_t begin = int64_t{linear.num_panels} * tid / pool_.size(),
                      end = int64_t{linear.num_panels} * (tid + 1) / pool_.size();
        sinks_[tid * 32] +=
            kernels_->probe_read(linear.data + begin * linear.panel_bytes, (end - begin) * linear.panel_bytes);
        pool_.barrier();
      }
    });
  }

  // Operations per second on registers only, of the kind that these types use.
  double peak() {
    const Kernels* kernels = kernels_;
    const bool dots = options_.format == WeightFormat::bf16 && options_.x_dtype == DType::bf16;
    for (int i = 0; i < available_isas().count && kernels->native_bf16 && !dots; i++)
      kernels = available_isas().tables[i];
    std::vector<double> flops(pool_.size());
    const double time = seconds(
        [&] { pool_.run([&](int tid) { flops[tid] = kernels->probe_multiply_add(2000000, &sinks_[tid * 32]); }); });
    double sum = 0;
    for (const double each : flops) sum += each;
    return sum / time;
  }

  Options options_;
  const Kernels* kernels_;  // in use
  ThreadPool pool_;
  std::vector<PackedLinear> linears_;
  HugeMemory weights_, source_, x_, quantized_, scratch_, y_;
  int max_n_ = 0;
  std::vector<float> sinks_;  // at least a cache line per thread
};

WeightFormat format_named(const std::string& name) {
  if (name == "int8") return WeightFormat::int8;
  if (name == "int8_zero") return WeightFormat::int8_zero;
  if (name == "int4") return WeightFormat::int4;
  if (name == "int4_zero") return WeightFormat::int4_zero;
  if (name == "fp8") return WeightFormat::fp8;
  return name == "f32" ? WeightFormat::f32 : name == "f16" ? WeightFormat::f16 : WeightFormat::bf16;
}

DType dtype_named(const std::string& name) { return name == "f32" ? DType::f32 : DType::bf16; }

Options parse(int argc, char** argv) {
  const auto argument = [&](int i, const char* otherwise) { return std::string(argc > i ? argv[i] : otherwise); };
  Options options{std::atoi(argument(1, "2").c_str()), {}, format_named(argument(3, "bf16")),
                  dtype_named(argument(4, "bf16")),    {}, 0};
  const std::string isas = "," + argument(2, available_isas().tables[0]->name) + ",";
  for (int i = 0; i < available_isas().count; i++) {
    const Kernels* const kernels = available_isas().tables[i];
    if (isas.find("," + std::string(kernels->name) + ",") != std::string::npos) options.isas.push_back(kernels);
  }
  if (options.isas.empty()) options.isas.push_back(available_isas().tables[0]);
  const std::string rows = argument(5, "1,5,8,32,512");
  for (size_t i = 0; i < rows.size(); i = rows.find(',', i) == std::string::npos ? rows.size() : rows.find(',', i) + 1)
    options.rows.push_back(std::atoi(rows.c_str() + i));
  options.repetitions = std::atoi(argument(6, "5").c_str());
  return options;
}

}  // namespace
}  // namespace nds::cpu

int main(int argc, char** argv) {
  const nds::cpu::Options options = nds::cpu::parse(argc, argv);
  std::printf("%d threads\n", options.num_threads);
  nds::cpu::Bench bench(options);
  bench.pack();
  bench.run();
  if (options.rows.size() > 1 && options.rows[1] <= 16) bench.ratio(options.rows[1]);
}
