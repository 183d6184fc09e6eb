#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

// The inner loops of ByteProduct: quantised weights as bytes by rows of x as bytes, four products
// to an addition (AVX-512 VNNI). Sums over a group are whole numbers, so exact; scales are applied
// to them, and groups added in fp32 in their order.

namespace strata::cpu {

/// Rows of w that are unpacked together: one vector of sums each sixteen.
constexpr std::int64_t kUnpackedRows = 32;
/// Groups of each that are: they stay in the first-level cache.
constexpr std::int64_t kUnpackedGroups = 8;

/// Groups of rows of w. Element = scale * (value - zero point).
struct alignas(64) UnpackedWeights {
  static constexpr std::int64_t kQuads = kGroupNumel / 4;
  /// Elements 4 q .. 4 q + 3 of the group, row by row.
  std::uint8_t values[kUnpackedGroups][kQuads][kUnpackedRows][4];
  float scales[kUnpackedGroups][kUnpackedRows];
  std::int32_t zero_points[kUnpackedGroups][kUnpackedRows];
};

/// The same of rows that were interleaved: kQ8x32 and kQ4x32, one group of kUnpackedRows rows of w.
/// Groups follow each other, then rows. As many bytes as row after row; the values of kQ8x32 have
/// 128 more.
struct InterleavedQ8 {
  std::uint16_t scales[kUnpackedRows];  ///< bf16
  std::uint8_t values[UnpackedWeights::kQuads][kUnpackedRows][4];
};
struct InterleavedQ4 {
  static constexpr std::int64_t kPairs = UnpackedWeights::kQuads / 2;
  std::uint16_t scales[kUnpackedRows];
  std::uint8_t zero_points[kUnpackedRows];
  /// Quad p in the low halves, quad p + kPairs in the high ones.
  std::uint8_t values[kPairs][kUnpackedRows][4];
};
static_assert(sizeof(InterleavedQ8) == kUnpackedRows * group_bytes(Dtype::kQ8x32));
static_assert(sizeof(InterleavedQ4) == kUnpackedRows * group_bytes(Dtype::kQ4x32));

/// What a group of a row of x was divided by, and minus the sum of its bytes.
struct ByteGroup {
  float step;
  std::int32_t negative_sum;
};

/// Rows of x: element = step * byte.
struct ByteRows {
  const std::int8_t* values;
  std::int64_t stride;      ///< of values, in bytes
  const ByteGroup* groups;  ///< [rows, group_count]
  std::int64_t group_count;
};

/// Whether this processor has what the functions below need.
bool has_avx512_vnni();

/// To the nearest of 255 multiples of a step for each group, its largest magnitude / 127. A group
/// that holds a number that is not finite has no finite product; one below 1e-30 is taken for 0.
void round_to_bytes(const float* x, std::int64_t groups, std::int8_t* values, ByteGroup* to);

/// Cache lines that will be wanted next. They are asked for evenly while others are worked on: a
/// burst would fill the queue of the caches and hold up their loads.
struct LinesAhead {
  const std::byte* next;
  std::int64_t of_unpacking;  ///< lines with each half of a group
  std::int64_t of_products;   ///< lines with a group of each part of x
};
/// So that `lines` lines from `next` on are asked for during `groups` groups of `rows` rows of x.
/// @param unpacks whether w is unpacked, which takes its share of the time
LinesAhead lines_ahead(const std::byte* next, std::int64_t lines, std::int64_t groups,
                       std::int64_t rows, bool unpacks);

/// @param w the first group of the first row. @param stride from row to row, in bytes
/// @param rows 1..kUnpackedRows; the last is repeated behind them
/// @param groups 1..kUnpackedGroups
void unpack(Dtype dtype, const std::byte* w, std::int64_t stride, std::int64_t rows,
            std::int64_t groups, LinesAhead& ahead, UnpackedWeights& to);

/// sums[t, n] += the products of groups [first, first + groups) of row `row + t` of x with the
/// unpacked ones, for t in [0, rows).
void add_byte_products(const UnpackedWeights& w, const ByteRows& x, std::int64_t row,
                       std::int64_t rows, std::int64_t first, std::int64_t groups,
                       LinesAhead& ahead, float (*sums)[kUnpackedRows]);
/// The same with interleaved weights of kUnpackedRows rows. @param w their group `first`
/// @param dtype kQ8x32 or kQ4x32
void add_byte_products(Dtype dtype, const std::byte* w, const ByteRows& x, std::int64_t row,
                       std::int64_t rows, std::int64_t first, std::int64_t groups,
                       LinesAhead& ahead, float (*sums)[kUnpackedRows]);

}  // namespace strata::cpu
