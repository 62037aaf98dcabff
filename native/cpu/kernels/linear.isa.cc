// y = x W^T over packed panels. Each output is summed by one call of linear_tile, so the division of work among threads
// and tiles changes no bit.
#include <cstdint>

#include "cpu/kernels/fp8_decode.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/linear_tile.h"
#if NDS_AMX
#include "cpu/kernels/linear_amx_int8.h"
#endif
#include "cpu/kernels/share.h"

namespace nds::cpu::NDS_ISA_NAMESPACE {
namespace {

// Max rows of a tile, whose sums stay in registers next to a k-step of weights: 12 rows of a panel take 24 of the 32
// zmm of AVX-512; for half panels see takes_halves.
constexpr int kMaxRows = NDS_AVX512 ? 12 : NDS_AVX2 ? 6 : 4;
constexpr int kTableRows = NDS_AMX ? 32 : kMaxRows;
// Bytes of a group of panels, which all row tiles use before the next group is read: half of a common L2.
constexpr int64_t kGroupBytes = 512 << 10;
// Max rows for which panels are taken one at a time. With more, arithmetic far outweighs the reading of weights, and
// panels are taken in groups.
constexpr int kFewRows = kMaxRows > 1 ? 96 : 8;
constexpr int64_t kReadAhead = 4096;  // prefetch distance, bytes
#if NDS_AMX
// Tiles of AMX multiply so fast that every read past L2 counts. Rows of bf16 of at most so many bytes stay in L2, of
// 2 MiB, while panels are taken one at a time; with more, four panels share each reading of the rows, or fewer where
// four exceed the second limit.
constexpr int64_t kAmxRowBytes = 1 << 20, kAmxGroupBytes = 768 << 10;
constexpr int64_t kAmxGroupPanels = 4;
#endif

using Tile = void (*)(const TileArgs&);
struct Tiles {
  int max_rows;
  Tile by_rows[kTableRows + 1];  // [rows]
};

template <typename Chunks>
const Tiles& tiles_of() {
#if NDS_AVX512
  static constexpr Tiles tiles = {
      kMaxRows,
      {nullptr, linear_tile<Chunks, 1>, linear_tile<Chunks, 2>, linear_tile<Chunks, 3>, linear_tile<Chunks, 4>,
       linear_tile<Chunks, 5>, linear_tile<Chunks, 6>, linear_tile<Chunks, 7>, linear_tile<Chunks, 8>,
       linear_tile<Chunks, 9>, linear_tile<Chunks, 10>, linear_tile<Chunks, 11>, linear_tile<Chunks, 12>}};
#elif NDS_AVX2
  // Tiles of more than 3 rows read half a panel at a time. That pays where more rows share the conversion of weights
  // and x is fp32. fp32 weights need no conversion and take twice the bytes; with bf16 activations the conversion of x
  // costs most. Both stop at 3 rows.
  if constexpr (Chunks::kManyRows) {
    static constexpr Tiles tiles = {kMaxRows,
                                    {nullptr, linear_tile<Chunks, 1>, linear_tile<Chunks, 2>, linear_tile<Chunks, 3>,
                                     linear_tile<Chunks, 4>, linear_tile<Chunks, 5>, linear_tile<Chunks, 6>}};
    return tiles;
  }
  static constexpr Tiles tiles = {3, {nullptr, linear_tile<Chunks, 1>, linear_tile<Chunks, 2>, linear_tile<Chunks, 3>}};
#elif NDS_NEON
  static constexpr Tiles tiles = {
      kMaxRows,
      {nullptr, linear_tile<Chunks, 1>, linear_tile<Chunks, 2>, linear_tile<Chunks, 3>, linear_tile<Chunks, 4>}};
#else
  static constexpr Tiles tiles = {1, {nullptr, linear_tile<Chunks, 1>}};
#endif
  return tiles;
}

template <typename Format, typename Chunks = GroupChunks<Format>>
constexpr Tiles kGroupTiles = {
    kGroupRows,
    {nullptr, linear_tile<Chunks, 1>, linear_tile<Chunks, 2>, linear_tile<Chunks, 3>, linear_tile<Chunks, 4>,
#if NDS_AVX512
     linear_tile<Chunks, 5>, linear_tile<Chunks, 6>, linear_tile<Chunks, 7>, linear_tile<Chunks, 8>
#endif
    }};

#if NDS_AMX
// Rows from which int8 weights are multiplied by AMX.
constexpr int kAmxInt8Rows = 9;

// The tiles of `few`, then, from first_row rows on, those of AMX: of one block of 16 rows or of two.
constexpr Tiles with_amx(Tiles few, int first_row, Tile one, Tile two) {
  few.max_rows = kAmxBlock;
  for (int rows = first_row; rows <= kAmxBlock; rows++) few.by_rows[rows] = rows <= kAmxRows ? one : two;
  return few;
}
constexpr Tiles kAmxBf16 = with_amx({}, 1, linear_amx_bf16<1>, linear_amx_bf16<2>);
constexpr Tiles kAmxInt8 = with_amx(kGroupTiles<Int8Dots>, kAmxInt8Rows, linear_amx_int8<1>, linear_amx_int8<2>);
#endif

template <typename X>
const Tiles& tiles_for(WeightFormat weights) {
  if (weights == WeightFormat::f32) return tiles_of<StepChunks<SingleSteps<WF32, X>>>();
  if (weights == WeightFormat::f16) return tiles_of<StepChunks<SingleSteps<WF16, X>>>();
  return tiles_of<StepChunks<PairSteps<X>>>();
}

[[maybe_unused]] bool holds_bf16(const PackedLinear& w) {
  return w.format == WeightFormat::bf16 || w.format == WeightFormat::fp8;
}

const Tiles& tiles_for(const PackedLinear& w, DType x) {
#if NDS_AMX
  const bool fills_amx_steps = w.group == kInt8Group && !w.has_wide_scales;
  if (w.format == WeightFormat::int8 && fills_amx_steps) return kAmxInt8;
  if (holds_bf16(w) && x == DType::bf16) return kAmxBf16;
#endif
  if (w.format == WeightFormat::int8) return kGroupTiles<Int8Dots>;
  if (w.format == WeightFormat::int8_zero) return kGroupTiles<Int8ZeroDots>;
  if (w.format == WeightFormat::int4) return kGroupTiles<Int4Dots>;
  if (w.format == WeightFormat::int4_zero) return kGroupTiles<Int4ZeroDots>;
#if NDS_BF16_DOT && !NDS_AMX
  if (holds_bf16(w) && x == DType::bf16) return tiles_of<StepChunks<DotSteps>>();
#endif
  return x == DType::bf16 ? tiles_for<XBf16>(w.format) : tiles_for<XF32>(w.format);
}

// Panels that all row tiles use before the next are read, where rows are many.
int64_t panels_at_once(const PackedLinear& w, int64_t group_bytes) {
  const int64_t bytes = w.format == WeightFormat::fp8 ? w.decoded_bytes : w.panel_bytes;
  const int64_t fitting = group_bytes / (bytes + 1);
  return fitting > 1 ? fitting : 1;
}

// Rows and panels of one thread.
struct Work {
  Share rows, panels;
};
Work work_of(const LinearArgs& args, int tid, int num_threads) {
  const Share all_rows{0, args.m}, all_panels{0, args.w->num_panels};
  // Few panels divide badly; many rows divide well, at the price of every thread reading all weights.
  const bool split_rows = args.w->num_panels < 8 * num_threads && args.m >= 4 * kMaxRows * num_threads;
  if (split_rows) return {share_of(args.m, tid, num_threads), all_panels};
  return {all_rows, share_of(args.w->num_panels, tid, num_threads)};
}

// Row tiles of nearly equal height over a group of panels.
class Group {
 public:
  Group(const LinearArgs& args, Share rows, uint8_t* decoded)
      : args_(args), rows_(rows), decoded_(decoded), tiles_(tiles_for(*args.w, args.x_dtype)) {
    num_tiles_ = (rows.end - rows.begin + tiles_.max_rows - 1) / tiles_.max_rows;
    one_panel_ = prefetches_next_ = rows.end - rows.begin <= kFewRows;
    x_size_ = is_group_format(args.w->format) ? 1 : args.x_dtype == DType::bf16 ? 2 : 4;
    step_bytes_ = args.w->format == WeightFormat::f16 ? 64 : 128;
#if NDS_AMX
    if (args.w->format == WeightFormat::bf16 && args.x_dtype == DType::bf16) {
      step_bytes_ = kAmxStepBytes;
      one_panel_ = (rows.end - rows.begin) * args.ldx * x_size_ <= kAmxRowBytes;
      max_group_panels_ = kAmxGroupPanels;
      max_group_bytes_ = kAmxGroupBytes;
      prefetches_next_ = true;
    }
#endif
    run_bytes_ = args.w->panel_bytes / args.w->num_chunks;
    if (is_group_format(args.w->format) && args.w->num_groups > 0) {
      step_bytes_ = (args.w->panel_bytes + args.w->num_tiles - 1) / args.w->num_tiles;
      run_bytes_ = args.w->panel_bytes / args.w->num_groups;
    }
  }

  int64_t num_panels() const {
    if (one_panel_) return 1;
    const int64_t fitting = panels_at_once(*args_.w, max_group_bytes_);
    return fitting > max_group_panels_ ? max_group_panels_ : fitting;
  }

  void run(Share panels) const {
    if (is_fp8() && num_tiles_ > 1) {
      for (int64_t p = panels.begin; p < panels.end; p++)
        decode(p, decoded_ + (p - panels.begin) * args_.w->decoded_bytes);
    }
    for (int64_t t = 0; t < num_tiles_; t++) {
      for (int64_t p = panels.begin; p < panels.end; p++) run_tile(panels, p, t);
    }
  }

 private:
  bool is_fp8() const { return args_.w->format == WeightFormat::fp8; }

  void decode(int64_t p, uint8_t* out) const {
    const PackedLinear& w = *args_.w;
    Fp8Panel panel(w, w.data + p * w.panel_bytes);
    for (int c = 0; c < w.num_chunks; c++) panel.decode(w.chunks[c], out + w.chunks[c].offset);
  }

  // Row tile t of panel p, which is one of `panels`, a group.
  void run_tile(Share panels, int64_t p, int64_t t) const {
    const int64_t num_rows = rows_.end - rows_.begin;
    const int64_t begin = rows_.begin + num_rows * t / num_tiles_, end = rows_.begin + num_rows * (t + 1) / num_tiles_;
    const PackedLinear& w = *args_.w;
    TileArgs tile;
    tile.w = &w;
    tile.panel = w.data + p * w.panel_bytes;
    tile.ldx = args_.ldx * x_size_;
    tile.x = static_cast<const uint8_t*>(args_.x) + begin * tile.ldx;
    tile.ldy = args_.ldy;
    tile.root_stride = args_.root_stride;
    tile.y = args_.y + begin * args_.ldy + p * kPanel;
    tile.bias = w.num_roots == 1 && args_.bias != nullptr ? args_.bias + p * kPanel : nullptr;
    const bool halves = is_group_format(w.format) ? kHalvesAtOnce == 1 : takes_halves(end - begin);
    if (num_tiles_ == 1 || !prefetches_next_) {
      // Both halves read the same chunk or group in turn, so all of it has to be prefetched before the first begins.
      tile.prefetch = tile.panel + kReadAhead + (halves ? run_bytes_ : 0);
      tile.prefetch_step = step_bytes_;
    } else {
      // Each row tile of this group prefetches its part of the next group.
      tile.prefetch = tile.panel + (panels.end - panels.begin) * w.panel_bytes + w.panel_bytes * t / num_tiles_;
      tile.prefetch_step = (step_bytes_ + num_tiles_ - 1) / num_tiles_;
    }
    if (halves) tile.prefetch_step = (tile.prefetch_step + 1) / 2;
    tile.codes = nullptr;
    tile.decoded = decoded_;
    if (is_fp8()) {
      // Rows of one tile take each chunk while it is in L1. What is decoded is in a cache already.
      if (num_tiles_ == 1) tile.codes = tile.panel;
      tile.panel = num_tiles_ == 1 ? decoded_ : decoded_ + (p - panels.begin) * w.decoded_bytes;
      tile.prefetch = tile.panel;
      tile.prefetch_step = 0;
    }
#if NDS_AMX
    tile.rows = static_cast<int>(end - begin);
    tile.amx = &amx_;
#endif
    tiles_.by_rows[end - begin](tile);
  }

  const LinearArgs& args_;
  Share rows_;
  uint8_t* const decoded_;
  const Tiles& tiles_;
  int64_t num_tiles_, x_size_;
  int64_t step_bytes_, run_bytes_;  // of weights: in a k-step or a tile of k; in what both halves read in turn
  int64_t max_group_bytes_ = kGroupBytes, max_group_panels_ = INT64_MAX;
  bool one_panel_;        // panels are taken one at a time
  bool prefetches_next_;  // where there are several row tiles, they prefetch the next panels instead of their own
#if NDS_AMX
  mutable AmxState amx_;
#endif
};

}  // namespace

int64_t linear_scratch_bytes(const PackedLinear& w) {
  if (w.format != WeightFormat::fp8) return 0;
  const int64_t at_once = panels_at_once(w, kGroupBytes);
  return (at_once < w.num_panels ? at_once : w.num_panels) * w.decoded_bytes;
}

void linear(const LinearArgs& args, int tid, int num_threads) {
  const Work work = work_of(args, tid, num_threads);
  if (work.rows.begin == work.rows.end) return;
  uint8_t* const decoded = args.scratch == nullptr ? nullptr : args.scratch + tid * linear_scratch_bytes(*args.w);
  const Group group(args, work.rows, decoded);
  const int64_t size = group.num_panels();
  for (int64_t p = work.panels.begin; p < work.panels.end; p += size) {
    group.run({p, p + size < work.panels.end ? p + size : work.panels.end});
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
