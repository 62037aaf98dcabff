// y = x W^T over packed panels, and silu(gate) * up of such a product. Each output is summed by one call of
// linear_tile, so the division of work among threads and tiles changes no bit.
#include <cstdint>

#include "cpu/kernels/activation.h"
#include "cpu/kernels/fp8_decode.h"
#include "cpu/kernels/isa_ops.h"
#include "cpu/kernels/linear_tile.h"
#if NDS_AMX
#include "cpu/kernels/linear_amx_int8.h"
#endif
#include "cpu/kernels/share.h"
#include "cpu/kernels/silu.h"

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
// Sums of gate and up that a row tile has at once, 32 KiB that stay in L1 or L2, and bytes of their panels where others
// are taken one at a time.
constexpr int64_t kSiluSums = 8192, kSiluGroupBytes = 256 << 10;
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

// The tiles of 1 to kMax rows.
template <typename Chunks, int kMax, int R = 1>
constexpr void add_tiles(Tiles& tiles) {
  tiles.by_rows[R] = linear_tile<Chunks, R>;
  if constexpr (R < kMax) add_tiles<Chunks, kMax, R + 1>(tiles);
}
template <typename Chunks, int kMax>
constexpr Tiles make_tiles() {
  Tiles tiles{kMax, {}};
  add_tiles<Chunks, kMax>(tiles);
  return tiles;
}
// Portable code has no registers for the sums of more than one row.
template <typename Steps>
constexpr Tiles kStepTiles = make_tiles<StepChunks<Steps>, NDS_AVX512 || NDS_AVX2 || NDS_NEON ? kMaxRows : 1>();
template <typename Format>
constexpr Tiles kGroupTiles = make_tiles<GroupChunks<Format>, kGroupRows<Format>>();

#if NDS_AMX
// Rows from which int8 weights, and int4 decoded to int8, are multiplied by AMX: fewer take longer by its tiles.
constexpr int kAmxInt8Rows = 3, kAmxInt4Rows = 6;

// The tiles of `few`, then, from first_row rows on, those of AMX: of one block of 16 rows or of two.
constexpr Tiles with_amx(Tiles few, int first_row, Tile one, Tile two) {
  few.max_rows = kAmxBlock;
  for (int rows = first_row; rows <= kAmxBlock; rows++) few.by_rows[rows] = rows <= kAmxRows ? one : two;
  return few;
}
constexpr Tiles kAmxBf16 = with_amx({}, 1, linear_amx_bf16<1>, linear_amx_bf16<2>);
constexpr Tiles kAmxInt8 = with_amx(kGroupTiles<Int8Dots>, kAmxInt8Rows, linear_amx_int8<1>, linear_amx_int8<2>);
template <typename Format>
constexpr Tiles kAmxInt4 = with_amx(kGroupTiles<Format>, kAmxInt4Rows, linear_amx_int4<1>, linear_amx_int4<2>);
#endif

template <typename X>
const Tiles& tiles_for(WeightFormat weights) {
  if (weights == WeightFormat::f32) return kStepTiles<SingleSteps<WF32, X>>;
  if (weights == WeightFormat::f16) return kStepTiles<SingleSteps<WF16, X>>;
  return kStepTiles<PairSteps<X>>;
}

[[maybe_unused]] bool holds_bf16(const PackedLinear& w) {
  return w.format == WeightFormat::bf16 || w.format == WeightFormat::fp8;
}

const Tiles& tiles_for(const PackedLinear& w, DType x) {
#if NDS_AMX
  if (w.format == WeightFormat::int8 && fills_amx_steps(w.group) && !w.has_wide_scales) return kAmxInt8;
  if (w.has_multipliers) return kAmxInt4<Int4TileDots>;
  if (decodes_int4(w)) {
    return w.format == WeightFormat::int4 ? kAmxInt4<WideGroups<Int4Dots>> : kAmxInt4<WideGroups<Int4ZeroDots>>;
  }
  if (holds_bf16(w) && x == DType::bf16) return kAmxBf16;
#endif
  if (w.format == WeightFormat::int8) return kGroupTiles<Int8Dots>;
  if (w.format == WeightFormat::int8_zero) return kGroupTiles<Int8ZeroDots>;
  if (w.has_multipliers) return kGroupTiles<Int4TileDots>;
  const bool is_wide = w.group > kTile;
  if (w.format == WeightFormat::int4) return is_wide ? kGroupTiles<WideGroups<Int4Dots>> : kGroupTiles<Int4Dots>;
  if (w.format == WeightFormat::int4_zero)
    return is_wide ? kGroupTiles<WideGroups<Int4ZeroDots>> : kGroupTiles<Int4ZeroDots>;
#if NDS_BF16_DOT && !NDS_AMX
  if (holds_bf16(w) && x == DType::bf16) return kStepTiles<DotSteps>;
#endif
  return x == DType::bf16 ? tiles_for<XBf16>(w.format) : tiles_for<XF32>(w.format);
}

// Whether tiles of many rows multiply decoded panels, and those of few rows perhaps.
bool is_decoded(const PackedLinear& w) { return w.format == WeightFormat::fp8 || decodes_int4(w); }

// Panels that all row tiles use before the next are read, where rows are many.
int64_t panels_at_once(const PackedLinear& w, int64_t group_bytes) {
  const int64_t bytes = is_decoded(w) ? w.decoded_bytes : w.panel_bytes;
  const int64_t fitting = group_bytes / (bytes + 1);
  return fitting > 1 ? fitting : 1;
}

// Panels that a thread decodes at once: a group, or a panel of gate and one of up.
int64_t decoded_panels(const PackedLinear& w) {
  const int64_t at_once = panels_at_once(w, kGroupBytes), wanted = at_once > 2 ? at_once : 2;
  return wanted < w.num_panels ? wanted : w.num_panels;
}

// Rows and panels of one thread.
struct Work {
  Share rows, panels;
};
Work work_of(int64_t m, int64_t num_panels, int tid, int num_threads) {
  const Share all_rows{0, m}, all_panels{0, num_panels};
  // Few panels divide badly; many rows divide well, at the price of every thread reading all weights.
  const bool split_rows = num_panels < 8 * num_threads && m >= 4 * kMaxRows * num_threads;
  if (split_rows) return {share_of(m, tid, num_threads), all_panels};
  return {all_rows, share_of(num_panels, tid, num_threads)};
}

uint8_t* scratch_of(const LinearArgs& args, int tid) {
  return args.scratch == nullptr ? nullptr : args.scratch + tid * linear_scratch_bytes(*args.w);
}

// Whether all row tiles but the last have the most rows, instead of nearly the same number. Tiles of 6 rows on AVX2
// have sums enough to hide the latency of multiply-adds, those of 3 and 4 have not: 6 and 2 rows take less than 4
// and 4. Not of groups, whose tiles hide it by other work.
constexpr bool fills_tiles(int64_t rows) {
  const int64_t rest = rows % kMaxRows;
  return NDS_AVX2 && rows > kMaxRows && (rest == 1 || rest == 2);
}

// Row tiles over a group of panels.
class Group {
 public:
  Group(const LinearArgs& args, Share rows, uint8_t* decoded)
      : args_(args), rows_(rows), decoded_(decoded), tiles_(tiles_for(*args.w, args.x_dtype)) {
    num_tiles_ = (rows.end - rows.begin + tiles_.max_rows - 1) / tiles_.max_rows;
    fills_tiles_ = !is_group_format(args.w->format) && fills_tiles(rows.end - rows.begin);
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
    if (decodes_first()) decode(panels, decoded_);
    for (int64_t t = 0; t < num_tiles_; t++) {
      const Share rows = rows_of(t);
      for (int64_t p = panels.begin; p < panels.end; p++)
        run_tile(panels, p, t, decoded_, args_.y + rows.begin * args_.ldy + p * kPanel, args_.ldy);
    }
  }

  // Panels of gate, and as many of up, whose sums a row tile has before it becomes activations.
  int64_t num_pairs() const {
    const int64_t num_rows = rows_.end - rows_.begin;
    const int64_t tile_rows = fills_tiles_ ? tiles_.max_rows : (num_rows + num_tiles_ - 1) / num_tiles_;
    const int64_t room = kSiluSums / (tile_rows * 2 * kPanel);
    if (num_tiles_ == 1) return room;
    const int64_t fitting = one_panel_ ? panels_at_once(*args_.w, kSiluGroupBytes) : num_panels();
    const int64_t pairs = fitting > 1 ? fitting / 2 : 1;
    return pairs < room ? pairs : room;
  }

  // Panels of gate, num_pairs() or fewer.
  void run_silu_mul(const LinearSiluMulArgs& args, Share gates) const {
    const int64_t up = args.up_offset / kPanel;
    const Share ups{gates.begin + up, gates.end + up};
    uint8_t* decoded_ups = decoded_;
    if (decodes_first()) {
      decoded_ups += (gates.end - gates.begin) * args_.w->decoded_bytes;
      decode(gates, decoded_);
      decode(ups, decoded_ups);
    }
    alignas(64) float sums[kSiluSums];  // [rows][gate, up][panels][32]
    const int64_t columns = (gates.end - gates.begin) * kPanel, first = gates.begin * kPanel;
    const int width = static_cast<int>(columns < args.width - first ? columns : args.width - first);
    for (int64_t t = 0; t < num_tiles_; t++) {
      const Share rows = rows_of(t);
      for (int64_t p = gates.begin; p < gates.end; p++)
        run_tile(gates, p, t, decoded_, sums + (p - gates.begin) * kPanel, 2 * columns);
      for (int64_t p = ups.begin; p < ups.end; p++)
        run_tile(ups, p, t, decoded_ups, sums + columns + (p - ups.begin) * kPanel, 2 * columns);
      for (int64_t row = rows.begin; row < rows.end; row++) {
        const float* const gate = sums + (row - rows.begin) * 2 * columns;
        uint8_t* const out = activation_row(args.out, args.ld_out, row, args.out_dtype);
        silu_mul_columns(gate, gate + columns, width, out, first, args.out_dtype);
      }
    }
  }

 private:
  bool decodes() const {
#if NDS_AMX
    if (decodes_int4(*args_.w)) return rows_.end - rows_.begin >= kAmxInt4Rows;
#endif
    return args_.w->format == WeightFormat::fp8;
  }
  // A group is decoded where several row tiles read it.
  bool decodes_first() const { return decodes() && num_tiles_ > 1; }

  // out [panels][decoded_bytes]
  void decode(Share panels, uint8_t* out) const {
    const PackedLinear& w = *args_.w;
    for (int64_t p = panels.begin; p < panels.end; p++) {
      decode_panel(w.data + p * w.panel_bytes, out);
      out += w.decoded_bytes;
    }
  }

  void decode_panel(const uint8_t* codes, uint8_t* out) const {
    const PackedLinear& w = *args_.w;
#if NDS_AMX
    if (decodes_int4(w)) return decode_int4_panel(w, codes, out);
#endif
    Fp8Panel panel(w, codes);
    for (int c = 0; c < w.num_chunks; c++) panel.decode(w.chunks[c], out + w.chunks[c].offset);
  }

  Share rows_of(int64_t t) const {
    const int64_t num_rows = rows_.end - rows_.begin;
    if (!fills_tiles_) return {rows_.begin + num_rows * t / num_tiles_, rows_.begin + num_rows * (t + 1) / num_tiles_};
    const int64_t begin = rows_.begin + t * tiles_.max_rows, end = begin + tiles_.max_rows;
    return {begin, end < rows_.end ? end : rows_.end};
  }

  // Row tile t of panel p, which is one of `panels`, a group; decoded: theirs, or of the panel.
  void run_tile(Share panels, int64_t p, int64_t t, uint8_t* decoded, float* y, int64_t ldy) const {
    const auto [begin, end] = rows_of(t);
    const PackedLinear& w = *args_.w;
    TileArgs tile;
    tile.w = &w;
    tile.panel = w.data + p * w.panel_bytes;
    tile.ldx = args_.ldx * x_size_;
    tile.x = static_cast<const uint8_t*>(args_.x) + begin * tile.ldx;
    tile.ldy = ldy;
    tile.root_stride = args_.root_stride;
    tile.y = y;
    tile.bias = w.num_roots == 1 && args_.bias != nullptr ? args_.bias + p * kPanel : nullptr;
    const bool halves = is_group_format(w.format) ? kHalvesAtOnce == 1 : takes_halves(end - begin);
    if (num_tiles_ == 1 || !prefetches_next_) {
      // Both halves read the same chunk or group in turn, so all of it has to be prefetched before the first begins.
      tile.prefetch = tile.panel + kReadAhead + (halves ? run_bytes_ : 0);
      // Row tiles after the first find the group in L2, unless a single panel is larger.
      tile.prefetch_step = t == 0 || w.panel_bytes > kGroupBytes ? step_bytes_ : 0;
    } else {
      // Each row tile of this group prefetches its part of the next group.
      tile.prefetch = tile.panel + (panels.end - panels.begin) * w.panel_bytes + w.panel_bytes * t / num_tiles_;
      tile.prefetch_step = (step_bytes_ + num_tiles_ - 1) / num_tiles_;
    }
    if (halves) tile.prefetch_step = (tile.prefetch_step + 1) / 2;
    tile.codes = nullptr;
    tile.decoded = decoded;
    if (decodes()) {
      // Rows of one tile take each chunk while it is in L1. What is decoded is in a cache already.
      if (num_tiles_ == 1) tile.codes = tile.panel;
      tile.panel = num_tiles_ == 1 ? decoded : decoded + (p - panels.begin) * w.decoded_bytes;
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
  bool fills_tiles_;
  int64_t step_bytes_, run_bytes_;  // of weights: in a k-step or a tile of k; in what both halves read in turn
  int64_t max_group_bytes_ = kGroupBytes, max_group_panels_ = INT64_MAX;
  bool one_panel_;        // panels are taken one at a time
  bool prefetches_next_;  // where there are several row tiles, they prefetch the next panels instead of their own
#if NDS_AMX
  mutable AmxState amx_;
#endif
};

}  // namespace

int64_t linear_scratch_bytes(const PackedLinear& w) { return is_decoded(w) ? decoded_panels(w) * w.decoded_bytes : 0; }

void linear(const LinearArgs& args, int tid, int num_threads) {
  const Work work = work_of(args.m, args.w->num_panels, tid, num_threads);
  if (work.rows.begin == work.rows.end) return;
  const Group group(args, work.rows, scratch_of(args, tid));
  const int64_t size = group.num_panels();
  for (int64_t p = work.panels.begin; p < work.panels.end; p += size) {
    group.run({p, p + size < work.panels.end ? p + size : work.panels.end});
  }
}

void linear_silu_mul(const LinearSiluMulArgs& args, int tid, int num_threads) {
  const Share padded = share_of(args.linear.m, tid, num_threads);
  for (int64_t row = padded.begin; row < padded.end; row++)
    zero_padding(activation_row(args.out, args.ld_out, row, args.out_dtype), args.width, args.ld_out, args.out_dtype);
  const Work work = work_of(args.linear.m, (args.width + kPanel - 1) / kPanel, tid, num_threads);
  if (work.rows.begin == work.rows.end) return;
  const Group group(args.linear, work.rows, scratch_of(args.linear, tid));
  const int64_t size = group.num_pairs();
  for (int64_t p = work.panels.begin; p < work.panels.end; p += size) {
    group.run_silu_mul(args, {p, p + size < work.panels.end ? p + size : work.panels.end});
  }
}

}  // namespace nds::cpu::NDS_ISA_NAMESPACE
