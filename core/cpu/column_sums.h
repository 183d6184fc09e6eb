#pragma once

#include <algorithm>
#include <cstdint>

#include "core/cpu/team.h"

namespace strata::cpu {

/// Columns and rows of the tiles in which sums over rows are taken. Constants: they decide the
/// order of the additions.
constexpr std::int64_t kColumnTile = 128;
constexpr std::int64_t kRowTile = 64;

/// to[c] += sum over rows of term(row, c) for all columns, spread over the team by columns. Rows
/// are added in order, kRowTile of them in a sum of their own, which keeps the rounding error of
/// long sums down. `accumulate(row_begin, rows, column_begin, columns, partial)` adds one tile to
/// partial[columns].
template <typename Accumulate>
void add_column_sums(std::int64_t rows, std::int64_t columns, float* to,
                     const Accumulate& accumulate) {
  for_blocks(columns, kColumnTile, [&](std::int64_t column, std::int64_t count) {
    float total[kColumnTile] = {};
    for (std::int64_t row = 0; row < rows; row += kRowTile) {
      float partial[kColumnTile] = {};
      accumulate(row, std::min(kRowTile, rows - row), column, count, partial);
      for (std::int64_t i = 0; i < count; ++i) total[i] += partial[i];
    }
    for (std::int64_t i = 0; i < count; ++i) to[column + i] += total[i];
  });
}

}  // namespace strata::cpu
