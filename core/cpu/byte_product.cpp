#include "core/cpu/byte_product.h"

#include <algorithm>
#include <cstring>
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
  const bool interleaved = is_interleaved(product.weights);
  const auto stride = static_cast<std::int64_t>(storage_bytes(product.weights, product.k));
  const auto group = static_cast<std::int64_t>(group_bytes(product.weights));
  const std::byte* w = static_cast<const std::byte*>(product.w) + column * stride;
  const std::int64_t block_bytes = columns * stride;
  LinesAhead ahead =
      lines_ahead(w + block_bytes, block_bytes / kLineBytes, x.group_count, rows, !interleaved);
  for (std::int64_t first = 0; first < x.group_count; first += kUnpackedGroups) {
    const std::int64_t groups = std::min(kUnpackedGroups, x.group_count - first);
    if (interleaved) {
      add_byte_products(product.weights, w + first * group * kUnpackedRows, x, row, rows, first,
                        groups, ahead, sums);
      continue;
    }
    unpack(product.weights, w + first * group, stride, columns, groups, ahead, unpacked);
    add_byte_products(unpacked, x, row, rows, first, groups, ahead, sums);
  }
  write_sums(product, sums[0], kUnpackedRows, row, rows, column, columns);
}

/// `to` gets group g of all rows.
void interleave_group(const UnpackedWeights& from, std::int64_t g, InterleavedQ8& to) {
  for (std::int64_t r = 0; r < kUnpackedRows; ++r) to.scales[r] = bf16(from.scales[g][r]).bits;
  std::memcpy(to.values, from.values[g], sizeof to.values);
}
void interleave_group(const UnpackedWeights& from, std::int64_t g, InterleavedQ4& to) {
  for (std::int64_t r = 0; r < kUnpackedRows; ++r) {
    to.scales[r] = bf16(from.scales[g][r]).bits;
    to.zero_points[r] = static_cast<std::uint8_t>(from.zero_points[g][r]);
  }
  const std::uint8_t* low = from.values[g][0][0];
  const std::uint8_t* high = from.values[g][InterleavedQ4::kPairs][0];
  std::uint8_t* pairs = to.values[0][0];
  for (std::size_t i = 0; i < sizeof to.values; ++i) {
    pairs[i] = static_cast<std::uint8_t>(low[i] | high[i] << 4);
  }
}

/// Thirty-two rows of `groups` groups, one after the other.
template <typename Group>
void interleave_rows(Dtype dtype, std::int64_t groups, std::byte* rows) {
  const auto stride = groups * static_cast<std::int64_t>(group_bytes(dtype));
  const std::vector<std::byte> from(rows, rows + stride * kUnpackedRows);
  auto* to = reinterpret_cast<Group*>(rows);
  UnpackedWeights unpacked;
  LinesAhead nothing{};
  for (std::int64_t first = 0; first < groups; first += kUnpackedGroups) {
    const std::int64_t count = std::min(kUnpackedGroups, groups - first);
    unpack(dtype, from.data() + first * static_cast<std::int64_t>(group_bytes(dtype)), stride,
           kUnpackedRows, count, nothing, unpacked);
    for (std::int64_t g = 0; g < count; ++g) interleave_group(unpacked, g, to[first + g]);
  }
}

}  // namespace

bool prefers_byte_product(const LinearProduct& product) {
  return product.rows <= 32 || !multiplies_tiles() || is_interleaved(product.weights);
}

bool ByteProduct::possible(const LinearProduct& product) {
  return is_quantized(product.weights) && product.compute != Dtype::kF32 && has_avx512_vnni();
}

Dtype ByteProduct::interleaved(ConstTensorView w) {
  if (w.shape().rank() != 2 || w.shape()[0] % kUnpackedRows != 0) return w.dtype();
  if (w.dtype() == Dtype::kQ8) return Dtype::kQ8x32;
  return w.dtype() == Dtype::kQ4 ? Dtype::kQ4x32 : w.dtype();
}

void ByteProduct::interleave(TensorView w) {
  expects(has_avx512_vnni() && interleaved(w) != w.dtype(), "these weights are not interleaved");
  const Shape& shape = w.shape();
  const std::int64_t groups = shape[1] / kGroupNumel;
  const std::size_t stride = storage_bytes(w.dtype(), shape[1]);
  for_blocks(shape[0], kUnpackedRows, [&](std::int64_t row, std::int64_t) {
    std::byte* rows = static_cast<std::byte*>(w.data()) + static_cast<std::size_t>(row) * stride;
    if (w.dtype() == Dtype::kQ8) {
      interleave_rows<InterleavedQ8>(w.dtype(), groups, rows);
    } else {
      interleave_rows<InterleavedQ4>(w.dtype(), groups, rows);
    }
  });
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
  expects(!is_interleaved(product.weights) || product.n % kUnpackedRows == 0,
          "interleaved weights have a multiple of 32 rows");
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
