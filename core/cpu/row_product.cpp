#include "core/cpu/row_product.h"

#include <algorithm>

#include "core/cpu/numeric.h"
#include "core/cpu/team.h"

namespace strata::cpu {
namespace {

/// Rows of x that meet w in one pass: what the second-level cache holds beside it.
constexpr std::int64_t kPassBytes = 640 * 1024;
/// Rows of w that a thread takes at a time.
constexpr std::int64_t kBlockWRows = 2 * kTileWRows;
/// For more rows of x than this, half as many rows of w at a time stay in the first-level cache.
constexpr std::int64_t kRowsOfWholeTiles = 4;
/// Behind each row of x: rows a power of two apart would share few lines of the caches.
constexpr std::int64_t kGapBytes = 64;

template <typename From, typename To>
STRATA_MULTIVERSION void convert_row(const From* __restrict from, To* __restrict to,
                                     std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) store(to[i], load(from[i]));
}

template <typename From, typename To>
void convert_rows(const void* x, std::int64_t rows, std::int64_t k, void* to, std::int64_t width) {
  for_row_blocks(rows, k, [&](std::int64_t begin, std::int64_t count) {
    for (std::int64_t row = begin; row < begin + count; ++row) {
      To* padded = static_cast<To*>(to) + row * width;
      convert_row(static_cast<const From*>(x) + row * k, padded, k);
      std::fill(padded + k, padded + width, To());
    }
  });
}

/// Everything a thread needs to know of a pass.
struct Pass {
  const LinearProduct& product;
  const RowKernel& kernel;
  const std::byte* x;
  std::int64_t x_stride;
  std::int64_t w_stride;
  const float* bias;
  std::int64_t row_begin;
  std::int64_t rows;
};

template <typename Output>
void write_sums(const Pass& pass, const RowTile& tile, std::int64_t row, std::int64_t column) {
  for (std::int64_t t = 0; t < tile.x_rows; ++t) {
    Output* y = static_cast<Output*>(pass.product.y) + (row + t) * pass.product.n + column;
    for (std::int64_t n = 0; n < tile.w_rows; ++n) {
      const float bias = pass.bias != nullptr ? pass.bias[column + n] : 0.0f;
      store(y[n], tile.sums[t][n] + bias);
    }
  }
}

/// All rows of the pass by up to kTileWRows rows of w.
template <typename Output>
void multiply_w_rows(const Pass& pass, std::int64_t column, std::int64_t count) {
  RowTile tile;
  tile.w = static_cast<const std::byte*>(pass.product.w) + column * pass.w_stride;
  tile.w_stride = pass.w_stride;
  tile.w_rows = count;
  tile.k = pass.product.k;
  tile.ahead = 2 * count * pass.w_stride;  // what comes after what comes next
  tile.x_total = pass.rows;
  tile.x_stride = pass.x_stride;
  for (std::int64_t t = 0; t < pass.rows; t += kTileXRows) {
    const std::int64_t row = pass.row_begin + t;
    tile.x = pass.x + row * pass.x_stride;
    tile.x_rows = std::min(kTileXRows, pass.rows - t);
    tile.x_begin = t;
    pass.kernel.multiply(tile);
    write_sums<Output>(pass, tile, row, column);
  }
}

}  // namespace

bool prefers_row_product(const LinearProduct& product) {
  if (is_quantized(product.weights)) return product.rows <= 1;
  const bool by_pairs = product.compute == Dtype::kBf16 && bf16_row_kernel(product.weights);
  return product.rows <= (by_pairs ? 32 : 8);
}

RowKernel RowProduct::kernel_for(const LinearProduct& product) const {
  if (kernels_ == Kernels::kFastest && product.compute == Dtype::kBf16) {
    if (const auto kernel = bf16_row_kernel(product.weights)) return *kernel;
  }
  return portable_row_kernel(product.weights);
}

const std::byte* RowProduct::prepare_x(const LinearProduct& product, Dtype dtype,
                                       std::int64_t stride) {
  const std::int64_t width = stride / static_cast<std::int64_t>(size_bytes(dtype));
  if (product.compute == dtype && width == product.k) {
    return static_cast<const std::byte*>(product.x);
  }
  void* to = x_.at_least(static_cast<std::size_t>(product.rows * stride));
  visit_compute_dtype(product.compute, [&]<typename From>(From) {
    if (dtype == Dtype::kF32) {
      convert_rows<From, float>(product.x, product.rows, product.k, to, width);
    } else {
      convert_rows<From, bf16>(product.x, product.rows, product.k, to, width);
    }
  });
  return static_cast<const std::byte*>(to);
}

const float* RowProduct::prepare_bias(const LinearProduct& product) {
  if (product.bias == nullptr) return nullptr;
  auto* to = static_cast<float*>(bias_.at_least(static_cast<std::size_t>(product.n) * 4));
  visit_compute_dtype(product.compute, [&]<typename T>(T) {
    convert_row(static_cast<const T*>(product.bias), to, product.n);
  });
  return to;
}

void RowProduct::run(const LinearProduct& product) {
  expects(!is_quantized(product.weights) || product.k % kGroupNumel == 0,
          "rows of quantised weights must be a multiple of 64 long");
  expects(!is_interleaved(product.weights), "interleaved weights are multiplied by bytes");
  const std::lock_guard lock(mutex_);
  if (product.rows == 0 || product.n == 0) return;
  const RowKernel kernel = kernel_for(product);
  const std::int64_t groups = (product.k + kGroupNumel - 1) / kGroupNumel;
  const std::int64_t x_stride =
      groups * kGroupNumel * static_cast<std::int64_t>(size_bytes(kernel.x)) +
      (product.rows > 1 ? kGapBytes : 0);
  const std::int64_t fit = kPassBytes / std::max(kGapBytes, x_stride);
  const std::int64_t pass_rows = std::max(kTileXRows, fit - fit % kTileXRows);
  Pass pass{product,
            kernel,
            prepare_x(product, kernel.x, x_stride),
            x_stride,
            static_cast<std::int64_t>(storage_bytes(product.weights, product.k)),
            prepare_bias(product),
            0,
            0};
  const std::int64_t w_rows = product.rows <= kRowsOfWholeTiles ? kTileWRows : kTileWRows / 2;
  visit_compute_dtype(product.output, [&]<typename Output>(Output) {
    for (; pass.row_begin < product.rows; pass.row_begin += pass_rows) {
      pass.rows = std::min(pass_rows, product.rows - pass.row_begin);
      for_blocks(product.n, kBlockWRows, [&](std::int64_t begin, std::int64_t count) {
        for (std::int64_t n = 0; n < count; n += w_rows) {
          multiply_w_rows<Output>(pass, begin + n, std::min(w_rows, count - n));
        }
      });
    }
  });
}

}  // namespace strata::cpu
