#pragma once

#include <cstdint>

namespace strata::cpu {

/// The rows and lanes of a step of tile_product: its accumulators fit the vector registers, and 32
/// lanes are enough for the compiler to make vectors of them.
constexpr std::int64_t kTileRows = 4;
constexpr std::int64_t kTileLanes = 32;

/// Element (row, step) of the left operand lies at data[row * row_stride + step * step_stride].
struct TileOperand {
  const float* data;
  std::int64_t row_stride;
  std::int64_t step_stride;
};

/// c[row, lane] += sum over step, in order, of a(row, step) b[step, lane]; all fp32, in cache.
/// Rows of b and c are `lanes` floats long. @pre rows % kTileRows == 0, lanes % kTileLanes == 0
void add_tile_product(TileOperand a, const float* __restrict b, float* __restrict c,
                      std::int64_t rows, std::int64_t lanes, std::int64_t steps);

}  // namespace strata::cpu
