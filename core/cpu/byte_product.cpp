#include "core/cpu/byte_product.h"

#include <algorithm>
#include <vector>

#include "core/cpu/matmul.h"
#include "core/cpu/product_rows.h"
#include "core/cpu/team.h"

namespace strata::cpu {
namespace {

/// Rows of x that meet w in one pass: their sums, and what the second-level cache holds of them.
constexpr std::int64_t kMostPassRows = 256;
constexpr std::int64_t kPassBytes = 640 * 1024;
/// Behind each row of x: rows a power of two apart would share few lines of the caches.
constexpr std::int64_t kGapBytes = 64;
constexpr std::int64_t kLineBytes = 64;

/// Rows [row, row + rows) of x by rows [column, column + columns) of w.
void multiply_block(const LinearProduct& product, const ByteRows& x, std::int64_t row,
                    std::int64_t rows, std::int64_t column, std::int64_t columns) {
  alignas(64) float sums[kMostPassRows][kUnpackedRows];
  std::fill_n(sums[0], rows * kUnpackedRows, 0.0f);
  UnpackedWeights unpacked;
  const auto stride = static_cast<std::int64_t>(storage_bytes(product.weights, product.k));
  const std::byte* w = static_cast<const std::byte*>(product.w) + column * stride;
  const std::int64_t block_bytes = columns * stride;
  LinesAhead ahead = lines_ahead(w + block_bytes, block_bytes / kLineBytes, x.group_count, rows);
  for (std::int64_t first = 0; first < x.group_count; first += kUnpackedGroups) {
    const std::int64_t groups = std::min(kUnpackedGroups, x.group_count - first);
    unpack(product.weights, w + first * static_cast<std::int64_t>(group_bytes(product.weights)),
           stride, columns, groups, ahead, unpacked);
    add_byte_products(unpacked, x, row, rows, first, groups, ahead, sums);
  }
  write_sums(product, sums[0], kUnpackedRows, row, rows, column, columns);
}

}  // namespace

bool prefers_byte_product(const LinearProduct& product) {
  return product.rows <= 32 || !multiplies_tiles();
}

bool ByteProduct::possible(const LinearProduct& product) {
  return is_quantized(product.weights) && product.compute != Dtype::kF32 && has_avx512_vnni();
}

ByteRows ByteProduct::round_rows(const LinearProduct& product) {
  const std::int64_t group_count = product.k / kGroupNumel;
  const std::int64_t stride = product.k + kGapBytes;
  const std::int64_t rows = product.rows;
  auto* values =
      static_cast<std::int8_t*>(values_.at_least(static_cast<std::size_t>(rows * stride)));
  auto* groups = static_cast<ByteGroup*>(
      groups_.at_least(static_cast<std::size_t>(rows * group_count) * sizeof(ByteGroup)));
  const auto* x = static_cast<const std::byte*>(product.x);
  const auto row_bytes = static_cast<std::int64_t>(storage_bytes(product.compute, product.k));
  for_row_blocks(rows, product.k, [&](std::int64_t begin, std::int64_t count) {
    std::vector<float> row(static_cast<std::size_t>(product.k));
    for (std::int64_t r = begin; r < begin + count; ++r) {
      to_floats(product.compute, x + r * row_bytes, product.k, row.data());
      round_to_bytes(row.data(), group_count, values + r * stride, groups + r * group_count);
    }
  });
  return {values, stride, groups, group_count};
}

void ByteProduct::run(const LinearProduct& product) {
  expects(possible(product), "bytes multiply quantised weights in 16 bits");
  expects(product.k % kGroupNumel == 0, "rows of quantised weights must be a multiple of 64 long");
  const std::lock_guard lock(mutex_);
  if (product.rows == 0 || product.n == 0) return;
  const ByteRows x = round_rows(product);
  const std::int64_t pass_rows = std::clamp<std::int64_t>(kPassBytes / x.stride, 8, kMostPassRows);
  for (std::int64_t row = 0; row < product.rows; row += pass_rows) {
    const std::int64_t rows = std::min(pass_rows, product.rows - row);
    for_blocks(product.n, kUnpackedRows, [&](std::int64_t column, std::int64_t columns) {
      multiply_block(product, x, row, rows, column, columns);
    });
  }
}

}  // namespace strata::cpu
