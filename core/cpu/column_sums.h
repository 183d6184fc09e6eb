#pragma once

#include <algorithm>
#include <cstdint>

#include "core/cpu/team.h"

namespace strata::cpu {

/// Columns and rows of the tiles in which sums over rows are taken. Constants: they decide the
/// order of the additions.
constexpr std::int64_t kColumnTile = 128;
constexpr std::int64_t kRowTile = 64;

/// to[c] += sum over rows of the terms of column c, spread over the team by columns. Rows are added
/// in order, kRowTile of them in a sum of their own, which keeps the rounding error of long sums
/// down. `add_row(row, column, count, partial)` adds the terms of columns [column, column + count)
/// of a row to partial[count]. Does nothing when `to` is nullptr: nobody wants the sum.
template <typename AddRow>
void add_column_terms(std::int64_t rows, std::int64_t columns, float* to, const AddRow& add_row) {
  if (to == nullptr) return;
  for_blocks(columns, kColumnTile, [&](std::int64_t column, std::int64_t count) {
    float total[kColumnTile] = {};
    for (std::int64_t begin = 0; begin < rows; begin += kRowTile) {
      float partial[kColumnTile] = {};
      for (std::int64_t row = begin; row < std::min(rows, begin + kRowTile); ++row) {
        add_row(row, column, count, partial);
      }
      for (std::int64_t i = 0; i < count; ++i) total[i] += partial[i];
    }
    for (std::int64_t i = 0; i < count; ++i) to[column + i] += total[i];
  });
}

/// to[c] += sum over rows of x[row, c], T float, bf16 or f16; same order, and nothing for nullptr.
template <typename T>
void add_column_sums(const T* x, std::int64_t rows, std::int64_t columns, float* to);

}  // namespace strata::cpu
