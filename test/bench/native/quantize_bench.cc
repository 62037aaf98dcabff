// Times `quantize_rows`, which makes int8 of the activations for quantized weights, on one thread. On a shared machine
// only ratios of runs in turns are meaningful: instruction sets alternate, and the last figure is the time of a copy of
// the same activations ÷ that of `quantize_rows`.
//
// Usage: quantize_bench [isa,isa,...] [rows,rows,...] [k,k,...] [repetitions]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/memory.h"
#include "core/program/reduction_tree.h"
#include "cpu/kernels.h"
#include "timing.h"

namespace nds::cpu {
namespace {

struct Case {
  WeightFormat format;
  DType x_dtype;
  int rows, k;
};

// Activations of every magnitude within a group: sin of their number.
void fill(uint8_t* x, int64_t count, DType dtype) {
  for (int64_t i = 0; i < count; i++) {
    const float value = std::sin(static_cast<float>(i));
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint16_t half = static_cast<uint16_t>(bits >> 16);
    if (dtype == DType::bf16) {
      std::memcpy(x + i * 2, &half, 2);
    } else {
      std::memcpy(x + i * 4, &value, 4);
    }
  }
}

void run(const Case& c, const std::vector<const Kernels*>& isas, int repetitions) {
  std::vector<int> edges;
  for (int chunk = 0; chunk <= 4; chunk++) edges.push_back(c.k / 4 * chunk);
  const PackedLinear w = plan_packed_linear(c.format, 1, edges, 0, 4);
  const int64_t ldx = c.k + 32, bytes = c.rows * ldx * dtype_size(c.x_dtype);
  const HugeMemory x(static_cast<size_t>(bytes), "bench activations"), copy(static_cast<size_t>(bytes), "bench copy");
  fill(x.data(), c.rows * ldx, c.x_dtype);
  std::vector<std::vector<double>> times(isas.size()), shares(isas.size());
  const int calls = std::max(1, (1 << 20) / (c.rows * c.k));
  for (size_t isa = 0; isa < isas.size() * static_cast<size_t>(repetitions); isa++) {
    const Kernels& kernels = *isas[isa % isas.size()];
    const HugeMemory out(static_cast<size_t>(c.rows * kernels.quantized_row_bytes(w)), "bench integers");
    const auto quantize = [&] {
      kernels.quantize_rows(
          {.x = x.data(), .ldx = ldx, .x_dtype = c.x_dtype, .rows = c.rows, .w = &w, .out = out.data()}, 0, 1);
    };
    quantize();
    const double time = seconds([&] {
      for (int i = 0; i < calls; i++) quantize();
    });
    const double copied = seconds([&] {
      for (int i = 0; i < calls; i++) std::memcpy(copy.data(), x.data(), static_cast<size_t>(bytes));
    });
    times[isa % isas.size()].push_back(time / calls / c.rows);
    shares[isa % isas.size()].push_back(copied / time);
  }
  for (size_t isa = 0; isa < isas.size(); isa++) {
    std::printf("%-12s %s of %s rows %4d k %5d: %8.0f ns a row, %5.2f values a ns, %.2f of a copy\n", isas[isa]->name,
                c.format == WeightFormat::int8 ? "int8" : "int4", c.x_dtype == DType::bf16 ? "bf16" : "f32 ", c.rows,
                c.k, median(times[isa]) * 1e9, c.k / median(times[isa]) / 1e9, median(shares[isa]));
  }
  std::fflush(stdout);
}

std::vector<int> numbers(const std::string& text) {
  std::vector<int> values;
  for (size_t i = 0; i < text.size(); i = text.find(',', i) == std::string::npos ? text.size() : text.find(',', i) + 1)
    values.push_back(std::atoi(text.c_str() + i));
  return values;
}

}  // namespace
}  // namespace nds::cpu

int main(int argc, char** argv) {
  using namespace nds;
  const auto argument = [&](int i, const char* otherwise) { return std::string(argc > i ? argv[i] : otherwise); };
  const std::string names = "," + argument(1, cpu::available_isas().tables[0]->name) + ",";
  std::vector<const cpu::Kernels*> isas;
  for (int i = 0; i < cpu::available_isas().count; i++) {
    const cpu::Kernels* const kernels = cpu::available_isas().tables[i];
    if (names.find("," + std::string(kernels->name) + ",") != std::string::npos) isas.push_back(kernels);
  }
  for (const int k : cpu::numbers(argument(3, "1024,3072"))) {
    for (const int rows : cpu::numbers(argument(2, "1,8,32,512"))) {
      for (const WeightFormat format : {WeightFormat::int8, WeightFormat::int4}) {
        for (const DType dtype : {DType::bf16, DType::f32})
          cpu::run({format, dtype, rows, k}, isas, std::atoi(argument(4, "9").c_str()));
      }
    }
  }
}
