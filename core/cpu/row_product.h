#pragma once

#include <cstdint>
#include <mutex>

#include "core/cpu/row_kernels.h"
#include "core/cpu/scratch.h"

namespace strata::cpu {

/// y[rows, n] = x[rows, k] w[n, k]^T + bias[n]: a layer's product forward. All row-major and dense.
struct LinearProduct {
  std::int64_t rows = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;           ///< a multiple of kGroupNumel where the weights are quantised
  Dtype compute = Dtype::kF32;  ///< of x and bias: fp32, bf16 or fp16
  Dtype weights = Dtype::kF32;  ///< compute or quantised; interleaved: for ByteProduct only
  Dtype output = Dtype::kF32;   ///< compute or fp32
  const void* x = nullptr;
  const void* w = nullptr;
  const void* bias = nullptr;  ///< [n] or nullptr
  void* y = nullptr;
};

/// Whether RowProduct is the faster way on this CPU, beside Matmul for plain weights (of up to 32
/// rows by pairs of bf16, and up to 8 in fp32) and PanelProduct for quantised ones (one row).
/// Measured on two Zen 4 cores (AVX-512 BF16, oneDNN 2.6.3; 2048 features): 0.9 of the faster way
/// or more. strata_linear_bench prints both for the machine at hand.
bool prefers_row_product(const LinearProduct& product);

/// Linear layers with weights that are read once, as they lie: each row of w meets a few rows of x
/// while it is in cache. A row of y has the same bits whatever the number of rows and whatever the
/// others hold. Quantised weights are decoded in registers.
///
/// Uses OpenMP teams of omp_get_max_threads() threads. Thread-safe: products take turns. Scratch
/// memory belongs to the object: x in the kernel's dtype, and bias in fp32.
class RowProduct {
 public:
  enum class Kernels : std::uint8_t { kFastest, kPortable };
  explicit RowProduct(Kernels kernels = Kernels::kFastest) : kernels_(kernels) {}

  /// Blocks until y is written. rows, n or k may be 0.
  void run(const LinearProduct& product);

 private:
  RowKernel kernel_for(const LinearProduct& product) const;
  const std::byte* prepare_x(const LinearProduct& product, Dtype dtype, std::int64_t stride);
  const float* prepare_bias(const LinearProduct& product);

  Kernels kernels_;
  std::mutex mutex_;
  Scratch x_, bias_;
};

}  // namespace strata::cpu
