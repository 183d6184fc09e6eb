#include "core/cpu/panel_product.h"

#include <omp.h>

#include <algorithm>
#include <exception>

#include "core/cpu/dequantize.h"
#include "core/cpu/product_rows.h"
#include "core/cpu/team.h"
#include "core/group_quantization.h"

namespace strata::cpu {
namespace {

/// What of the second-level cache a panel may fill.
constexpr std::int64_t kPanelBytes = 512 * 1024;
constexpr std::int64_t kMostWRows = 128;
/// Panels are a multiple of this many rows of w, one vector of sums; all but the last.
constexpr std::int64_t kStepWRows = 16;
/// Rows of x that meet a panel in one product, which bounds its sums.
constexpr std::int64_t kMostXRows = 512;

std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

/// Rows of w in a panel: few enough for the cache, and for every thread to have as many panels.
std::int64_t panel_w_rows(std::int64_t n, std::int64_t row_bytes, std::int64_t threads) {
  const std::int64_t fit = kPanelBytes / std::max<std::int64_t>(1, row_bytes);
  const std::int64_t most = std::clamp(fit / kStepWRows * kStepWRows, kStepWRows, kMostWRows);
  const std::int64_t panels = round_up((n + most - 1) / most, threads);
  return round_up((n + panels - 1) / panels, kStepWRows);
}

}  // namespace

/// Everything a thread needs to know of a product.
struct PanelProduct::Panels {
  const LinearProduct& product;
  Dtype dtype;  ///< of panels and of x
  const void* x;
  std::int64_t w_rows;
};

const void* PanelProduct::prepare_x(const LinearProduct& product, Dtype dtype) {
  if (product.compute == dtype) return product.x;
  const std::int64_t numel = product.rows * product.k;
  auto* to = static_cast<float*>(x_.at_least(static_cast<std::size_t>(numel) * sizeof(float)));
  const auto* x = static_cast<const std::byte*>(product.x);
  const auto width = static_cast<std::int64_t>(size_bytes(product.compute));
  for_blocks(numel, kBlockNumel, [&](std::int64_t begin, std::int64_t count) {
    to_floats(product.compute, x + begin * width, count, to + begin);
  });
  return to;
}

void PanelProduct::multiply_panel(const Panels& panels, std::int64_t column, Worker& worker) {
  const LinearProduct& product = panels.product;
  const std::int64_t columns = std::min(panels.w_rows, product.n - column);
  const std::int64_t numel = columns * product.k;
  const std::size_t numel_bytes = size_bytes(panels.dtype);
  const std::byte* w = static_cast<const std::byte*>(product.w) +
                       storage_bytes(product.weights, product.k) * static_cast<std::size_t>(column);
  void* panel = worker.panel.at_least(static_cast<std::size_t>(numel) * numel_bytes);
  if (panels.dtype == Dtype::kBf16) {
    dequantize_to_bf16(w, product.weights, numel / kGroupNumel, static_cast<std::byte*>(panel));
  } else {
    dequantize(w, product.weights, {static_cast<float*>(panel), static_cast<std::size_t>(numel)});
  }
  for (std::int64_t row = 0; row < product.rows; row += kMostXRows) {
    const std::int64_t rows = std::min(kMostXRows, product.rows - row);
    auto* sums = static_cast<float*>(
        worker.sums.at_least(static_cast<std::size_t>(rows * columns) * sizeof(float)));
    const std::byte* x = static_cast<const std::byte*>(panels.x) +
                         static_cast<std::size_t>(row * product.k) * numel_bytes;
    worker.matmul.run({.m = rows,
                       .n = columns,
                       .k = product.k,
                       .compute = panels.dtype,
                       .output = Dtype::kF32,
                       .accumulate = false,
                       .a = {x, false},
                       .b = {panel, true},
                       .bias = nullptr,
                       .c = sums},
                      OperandLayout::kPlain);
    write_sums(product, sums, columns, row, rows, column, columns);
  }
}

void PanelProduct::run(const LinearProduct& product) {
  expects(is_quantized(product.weights) && !is_interleaved(product.weights),
          "panels are made of quantised weights whose rows lie one after the other");
  expects(product.k % kGroupNumel == 0, "rows of quantised weights must be a multiple of 64 long");
  const std::lock_guard lock(mutex_);
  if (product.rows == 0 || product.n == 0) return;
  const bool in_bf16 =
      kernels_ == Kernels::kFastest && product.compute == Dtype::kBf16 && has_avx512_bf16();
  const Dtype dtype = in_bf16 ? Dtype::kBf16 : Dtype::kF32;
  const int threads = omp_get_max_threads();
  while (workers_.size() < static_cast<std::size_t>(threads)) {
    workers_.push_back(std::make_unique<Worker>());
  }
  const Panels panels{
      product, dtype, prepare_x(product, dtype),
      panel_w_rows(product.n, product.k * static_cast<std::int64_t>(size_bytes(dtype)), threads)};
  std::exception_ptr failure;
#pragma omp parallel num_threads(threads)
  {
    omp_set_num_threads(1);  // of this thread alone: its products are not shared out again
    Worker& worker = *workers_[static_cast<std::size_t>(omp_get_thread_num())];
#pragma omp for schedule(dynamic)
    for (std::int64_t column = 0; column < product.n; column += panels.w_rows) {
      try {
        multiply_panel(panels, column, worker);
      } catch (...) {
#pragma omp critical(strata_panel_product)
        failure = std::current_exception();
      }
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace strata::cpu
