#include "core/cpu/tile_product.h"

namespace strata::cpu {
namespace {

[[gnu::always_inline]] inline void add_step_block(const TileOperand& a, const float* __restrict b,
                                                  float* __restrict c, std::int64_t lanes,
                                                  std::int64_t steps) {
  float sums[kTileRows][kTileLanes];
  for (int row = 0; row < kTileRows; ++row) {
    for (int lane = 0; lane < kTileLanes; ++lane) sums[row][lane] = c[row * lanes + lane];
  }
  for (std::int64_t step = 0; step < steps; ++step) {
    for (int row = 0; row < kTileRows; ++row) {
      const float factor = a.data[row * a.row_stride + step * a.step_stride];
      for (int lane = 0; lane < kTileLanes; ++lane)
        sums[row][lane] += factor * b[step * lanes + lane];
    }
  }
  for (int row = 0; row < kTileRows; ++row) {
    for (int lane = 0; lane < kTileLanes; ++lane) c[row * lanes + lane] = sums[row][lane];
  }
}

STRATA_MULTIVERSION void add_product(TileOperand a, const float* __restrict b, float* __restrict c,
                                     std::int64_t rows, std::int64_t lanes, std::int64_t steps) {
  for (std::int64_t lane = 0; lane < lanes; lane += kTileLanes) {
    for (std::int64_t row = 0; row < rows; row += kTileRows) {
      const TileOperand part{a.data + row * a.row_stride, a.row_stride, a.step_stride};
      add_step_block(part, b + lane, c + row * lanes + lane, lanes, steps);
    }
  }
}

}  // namespace

void add_tile_product(TileOperand a, const float* __restrict b, float* __restrict c,
                      std::int64_t rows, std::int64_t lanes, std::int64_t steps) {
  add_product(a, b, c, rows, lanes, steps);
}

}  // namespace strata::cpu
