#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "core/dtype.h"

// The inner loops of RowProduct: a few rows of x by a few rows of w. Each of the sums is taken in
// the same order, whatever the numbers of rows: in 16 strands over k, for quantised weights group
// by group before the scale is applied, and at last the strands pairwise.

namespace strata::cpu {

constexpr std::int64_t kTileXRows = 8;
constexpr std::int64_t kTileWRows = 8;

/// sums[t, n] = sum over k of x[t, k] w[n, k]. Strides are bytes.
struct RowTile {
  const std::byte* x;  ///< of the kernel's dtype, zeros from k to the end of the group
  std::int64_t x_stride;
  std::int64_t x_rows;  ///< 1..kTileXRows
  const std::byte* w;
  std::int64_t w_stride;
  std::int64_t w_rows;  ///< 1..kTileWRows
  std::int64_t k;
  std::int64_t ahead;    ///< weights this many bytes behind those in use will be wanted next
  std::int64_t x_begin;  ///< rows of x that met these weights before the tile's
  std::int64_t x_total;  ///< and all that will
  float sums[kTileXRows][kTileWRows];
};

/// What of tile.ahead the rows [t, t + x) of the tile ask for: all of it when they are the last.
inline std::int64_t ahead_of_last(const RowTile& tile, std::int64_t t, std::int64_t x) {
  return tile.x_begin + t + x == tile.x_total ? tile.ahead : 0;
}

/// A way to multiply by weights of one dtype.
struct RowKernel {
  Dtype x;  ///< fp32 or bf16
  void (*multiply)(RowTile& tile);
};

/// Whether this processor multiplies pairs of bf16 in AVX-512.
bool has_avx512_bf16();
/// Multiplies in fp32, on any processor. `weights` is fp32, bf16, fp16, kQ8 or kQ4.
RowKernel portable_row_kernel(Dtype weights);
/// Multiplies pairs of bf16 (dpbf16ps). Nothing where !has_avx512_bf16(), or for other weights than
/// bf16; quantised ones are for ByteProduct.
std::optional<RowKernel> bf16_row_kernel(Dtype weights);

}  // namespace strata::cpu
