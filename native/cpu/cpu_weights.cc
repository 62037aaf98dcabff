// The weights of one rank: vectors copied, embedding tables used in place where their type is kept, matrices packed.
#include "cpu/cpu_weights.h"

#include <algorithm>
#include <atomic>
#include <string>

#include "core/convert.h"
#include "core/error.h"
#include "core/program/reduction_tree.h"
#include "core/program/slice_reader.h"
#include "core/program/slice_source.h"
#include "core/round_up.h"
#include "cpu/pack_codes.h"
#include "cpu/pack_fp8.h"
#include "cpu/packed_file.h"

namespace nds::cpu {
namespace {

// Bytes that the disk reads ahead of what is packed.
constexpr int64_t kPrefetched = int64_t{64} << 20;
// Rows of a table between two reports of progress.
constexpr int64_t kRowsAtOnce = 256;

int64_t num_panels(const TensorSlice& piece) { return (piece.num_rows() + kPanel - 1) / kPanel; }

// Bytes of one panel's rows of the widest piece that is converted; 0 if none is.
int64_t converted_panel_bytes(const ProgramSpec& program) {
  int64_t most = 0;
  for (const WeightSpec& spec : program.weights) {
    if (spec.kind != WeightKind::linear || spec.format == WeightFormat::fp8) continue;
    const DType dtype = row_dtype(spec.format);
    for (const TensorSlice& piece : spec.pieces) {
      if (piece.is_encoded() || piece.dtype != dtype)
        most = std::max(most, kPanel * piece.num_slice_cols() * static_cast<int64_t>(dtype_size(dtype)));
    }
  }
  return round_up(most, 64);
}

// Packs this thread's share of the panels one by one. Where they are not stored as they are kept, each is converted in
// `panel` first: no more of the piece is held twice. False if a weight does not fit its format.
bool pack_share(const SliceReader& reader, const TensorSlice& piece, PackArgs args, uint8_t* panel,
                const Kernels& kernels, int tid, int num_threads, const OnLoaded& on_loaded) {
  const int64_t count = num_panels(piece), first_panel = args.first_panel;
  const uint8_t* const stored = reader.in_place();
  const int64_t stride = piece.num_cols * static_cast<int64_t>(dtype_size(row_dtype(args.w->format)));
  bool fits = true;
  args.src_ld = stored != nullptr ? piece.num_cols : piece.num_slice_cols();
  for (int64_t p = count * tid / num_threads; p < count * (tid + 1) / num_threads; p++) {
    args.num_rows = static_cast<int>(std::min<int64_t>(kPanel, piece.num_rows() - p * kPanel));
    args.first_panel = static_cast<int>(first_panel + p);
    args.src = stored != nullptr ? stored + p * kPanel * stride : panel;
    if (stored == nullptr) reader.read(p * kPanel, args.num_rows, panel, args.src_ld);
    fits = kernels.pack_linear(args, 0, 1) && fits;
    on_loaded(args.w->panel_bytes);
  }
  return fits;
}

// Packs this thread's share of the panels of a piece that stays as it is stored, by `pack`.
template <typename Pack>
CodeProblem pack_codes_share(const TensorSlice& piece, const PackedLinear& w, int first_panel, int tid, int num_threads,
                             const OnLoaded& on_loaded, Pack pack) {
  const int64_t count = num_panels(piece);
  CodeProblem problem = CodeProblem::none;
  for (int64_t p = count * tid / num_threads; p < count * (tid + 1) / num_threads; p++) {
    const int num_rows = static_cast<int>(std::min<int64_t>(kPanel, piece.num_rows() - p * kPanel));
    const CodePanel rows{w, piece, p * kPanel, num_rows, static_cast<int>(first_panel + p)};
    const CodeProblem own = pack(rows);
    if (own != CodeProblem::none) problem = own;
    on_loaded(w.panel_bytes);
  }
  return problem;
}

// The pieces of a program's matrices in the order in which they are packed, read from disk ahead of that.
class Prefetcher {
 public:
  Prefetcher(const ProgramSpec& program, const std::vector<MappedFile>& files) : files_(files) {
    for (const WeightSpec& spec : program.weights) {
      if (spec.kind != WeightKind::linear) continue;
      for (const TensorSlice& piece : spec.pieces) pieces_.push_back(&piece);
    }
  }

  // Before the next piece is packed.
  void advance() {
    for (; ahead_ < pieces_.size() && (ahead_ <= current_ || ahead_bytes_ < kPrefetched); ahead_++) {
      const TensorSlice& piece = *pieces_[ahead_];
      files_.at(piece.file).prefetch(begin_of(piece), bytes_of(piece));
      ahead_bytes_ += bytes_of(piece);
    }
    ahead_bytes_ -= bytes_of(*pieces_[current_++]);
  }

 private:
  // Rows of integers are not contiguous in every layout: all of them are read ahead.
  static int64_t begin_of(const TensorSlice& piece) {
    return piece.byte_offset + (piece.integers ? 0 : piece.row_begin * piece.num_cols * piece.stored_size());
  }
  static int64_t bytes_of(const TensorSlice& piece) {
    if (piece.integers) return piece.integers->num_rows * piece.num_cols * piece.integers->bits / 8;
    return piece.num_rows() * piece.num_cols * piece.stored_size();
  }

  const std::vector<MappedFile>& files_;
  std::vector<const TensorSlice*> pieces_;
  size_t current_ = 0, ahead_ = 0;
  int64_t ahead_bytes_ = 0;
};

[[noreturn]] void refuse_codes(const TensorSlice& piece, const KeptCodes& codes, CodeProblem problem) {
  if (problem == CodeProblem::format)
    throw Error("ERR_INTERNAL", "Expected integers and groups of their format in tensor " + piece.name);
  throw Error("ERR_CHECKPOINT", "Expected scales that, times 256, " +
                                    std::string(codes.has_wide_scales ? "fp32" : "fp16") + " holds for tensor " +
                                    piece.name + " but received others; quantization: 'expand' loads it as bfloat16");
}

[[noreturn]] void refuse_fp8(const TensorSlice& piece) {
  throw Error("ERR_CHECKPOINT", "Expected scales of 0 or of magnitudes from 2^-100 to 2^7 for tensor " + piece.name +
                                    " but received others; quantization: 'expand' loads it as bfloat16");
}

// Of a matrix that stays in fp8: the narrowest of its pieces' blocks, whose edges are among those of the others.
Fp8Columns fp8_columns(const WeightSpec& spec) {
  if (spec.format != WeightFormat::fp8) return {};
  int64_t per_scale = spec.pieces[0].num_cols;
  for (const TensorSlice& piece : spec.pieces) per_scale = std::min(per_scale, piece.fp8->cols_per_scale);
  return {static_cast<int>(per_scale), static_cast<int>(spec.pieces[0].col_begin)};
}

[[noreturn]] void refuse(const TensorSlice& piece, WeightFormat format) {
  const bool is_int4 = format == WeightFormat::int4;
  throw Error("ERR_CHECKPOINT", "Expected finite weights below " + std::string(is_int4 ? "30712" : "32496") + " for " +
                                    (is_int4 ? "int4" : "int8") + " in tensor " + piece.name + " but received others");
}

}  // namespace

CpuWeights::CpuWeights(const ProgramSpec& program, const Kernels& kernels, ThreadPool& pool, const OnLoaded& on_loaded)
    : weights_(program.weights.size()) {
  files_.reserve(program.files.size());
  for (const std::string& path : program.files) files_.emplace_back(path);
  for (size_t i = 0; i < weights_.size(); i++) {
    const WeightSpec& spec = program.weights[i];
    if (spec.kind == WeightKind::vector) {
      load_vector(spec, weights_[i]);
      on_loaded(static_cast<int64_t>(weights_[i].vector.size()) * 4);
    }
    if (spec.kind == WeightKind::table) load_table(spec, pool, weights_[i], on_loaded);
  }
  plan_linears(program);
  place_linears();
  const std::optional<PackedFileSpec>& file = program.packed_file;
  if (file && read_file(*file, pool, on_loaded)) return;
  pack(program, kernels, pool, on_loaded);
  // What was packed is not read again: its pages count for no one.
  for (const MappedFile& mapped : files_) mapped.drop_pages();
  if (file) write_file(*file, pool, on_loaded);
}

void CpuWeights::load_vector(const WeightSpec& spec, Weight& weight) {
  for (const TensorSlice& piece : spec.pieces) {
    const size_t begin = weight.vector.size();
    const int64_t count = piece.num_slice_cols();
    weight.vector.resize(begin + round_up(count, kPanel));
    widen(slice_source(files_.at(piece.file), piece), piece.dtype, count, weight.vector.data() + begin);
  }
  bytes_ += static_cast<int64_t>(weight.vector.size()) * 4;
}

void CpuWeights::load_table(const WeightSpec& spec, ThreadPool& pool, Weight& weight, const OnLoaded& on_loaded) {
  const TensorSlice& slice = spec.pieces[0];
  const SliceReader reader(files_, slice, spec.dtype);
  const int64_t num_rows = slice.num_rows();
  const int64_t row_bytes = slice.num_cols * static_cast<int64_t>(dtype_size(spec.dtype));
  const uint8_t* rows = reader.in_place();
  if (rows == nullptr) {
    weight.converted = HugeMemory(static_cast<size_t>(num_rows * row_bytes), "an embedding");
    uint8_t* const out = weight.converted.data();
    pool.run([&](int tid) {
      const int64_t end = num_rows * (tid + 1) / pool.size();
      for (int64_t row = num_rows * tid / pool.size(); row < end; row += kRowsAtOnce) {
        const int64_t count = std::min(kRowsAtOnce, end - row);
        reader.read(row, count, out + row * row_bytes, slice.num_cols);
        on_loaded(count * row_bytes);
      }
    });
    rows = out;
  }
  weight.table = {rows, spec.dtype, slice.num_cols, static_cast<int>(spec.first_row), static_cast<int>(num_rows)};
  bytes_ += num_rows * row_bytes;
}

void CpuWeights::plan_linears(const ProgramSpec& program) {
  int64_t total = 0;
  for (size_t i = 0; i < weights_.size(); i++) {
    const WeightSpec& spec = program.weights[i];
    if (spec.kind != WeightKind::linear) continue;
    int64_t panels = 0;
    for (const TensorSlice& piece : spec.pieces) panels += num_panels(piece);
    weights_[i].linear = std::make_unique<PackedLinear>(
        plan_packed_linear(spec.format, static_cast<int>(panels), spec.chunk_edges, spec.first_chunk, spec.num_chunks,
                           spec.codes ? &*spec.codes : nullptr, fp8_columns(spec)));
    if (spec.codes && !spec.codes->columns.empty()) {
      weights_[i].columns.assign(spec.codes->columns.begin(), spec.codes->columns.end());
      weights_[i].linear->columns = weights_[i].columns.data();
      weights_[i].linear->k = static_cast<int>(spec.pieces[0].num_slice_cols());
    }
    total += panels * weights_[i].linear->panel_bytes;
  }
  packed_bytes_ = total;
  bytes_ += total;
}

// Zeroed memory for all matrices, and the place of each in it.
void CpuWeights::place_linears() {
  packed_ = HugeMemory();
  packed_ = HugeMemory(static_cast<size_t>(packed_bytes_), "packed weights");
  uint8_t* next = packed_.data();
  for (Weight& weight : weights_) {
    if (weight.linear == nullptr) continue;
    weight.linear->data = next;
    next += weight.linear->num_panels * weight.linear->panel_bytes;
  }
}

bool CpuWeights::read_file(const PackedFileSpec& file, ThreadPool& pool, const OnLoaded& on_loaded) {
  if (file.read_path.empty()) return false;
  const std::string problem = read_packed_file(file, packed_.data(), packed_bytes_, pool, on_loaded);
  if (!problem.empty()) {
    notice_ = "Expected packed weights in " + file.read_path + ", which are made again, but " + problem + ". ";
    place_linears();
    return false;
  }
  file_bytes_ = packed_bytes_;
  return true;
}

void CpuWeights::write_file(const PackedFileSpec& file, ThreadPool& pool, const OnLoaded& on_loaded) {
  if (file.write_path.empty()) return;
  const std::string problem = write_packed_file(file, packed_.data(), packed_bytes_, pool, on_loaded);
  if (!problem.empty())
    notice_ += "Expected to write packed weights to " + file.write_path + " but received: " + problem + ". ";
}

void CpuWeights::pack(const ProgramSpec& program, const Kernels& kernels, ThreadPool& pool, const OnLoaded& on_loaded) {
  const int64_t panel_bytes = converted_panel_bytes(program);
  const HugeMemory scratch(static_cast<size_t>(panel_bytes * pool.size()), "weights to convert");
  Prefetcher prefetcher(program, files_);
  for (size_t i = 0; i < weights_.size(); i++) {
    PackedLinear* linear = weights_[i].linear.get();
    if (linear == nullptr) continue;
    const WeightSpec& spec = program.weights[i];
    int first_panel = 0;
    for (const TensorSlice& piece : spec.pieces) {
      prefetcher.advance();
      const auto scratch_of = [&](int tid) { return scratch.data() + tid * panel_bytes; };
      // pack(rows, tid) packs the rows of one panel as they are stored.
      const auto pack_as_stored = [&](const auto& pack) {
        std::atomic<CodeProblem> problem{CodeProblem::none};
        pool.run([&](int tid) {
          const CodeProblem own = pack_codes_share(piece, *linear, first_panel, tid, pool.size(), on_loaded,
                                                   [&](const CodePanel& rows) { return pack(rows, tid); });
          if (own != CodeProblem::none) problem = own;
        });
        return problem.load();
      };
      if (spec.format == WeightFormat::fp8) {
        const Fp8Reader reader(files_, piece);
        const CodeProblem problem = pack_as_stored([&](const CodePanel& rows, int) { return pack_fp8(reader, rows); });
        if (problem != CodeProblem::none) refuse_fp8(piece);
      } else if (spec.codes) {
        const IntegerReader reader(files_, piece);
        const CodeProblem problem = pack_as_stored([&](const CodePanel& rows, int tid) {
          return pack_codes(reader, rows, reinterpret_cast<int16_t*>(scratch_of(tid)));
        });
        if (problem != CodeProblem::none) refuse_codes(piece, *spec.codes, problem);
      } else {
        const SliceReader reader(files_, piece, row_dtype(linear->format));
        const PackArgs args{.w = linear, .src = nullptr, .src_ld = 0, .num_rows = 0, .first_panel = first_panel};
        std::atomic<bool> fits{true};
        pool.run([&](int tid) {
          if (!pack_share(reader, piece, args, scratch_of(tid), kernels, tid, pool.size(), on_loaded)) fits = false;
        });
        if (!fits) refuse(piece, linear->format);
      }
      first_panel += static_cast<int>(num_panels(piece));
    }
  }
}

}  // namespace nds::cpu
