#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "core/cpu/matmul.h"
#include "core/cpu/row_product.h"
#include "core/cpu/scratch.h"

namespace strata::cpu {

/// Linear layers of many rows with quantised weights. Each thread makes plain numbers of some rows
/// of w at a time, a panel that stays in its second-level cache, and multiplies all rows of x by
/// it. Panels are bf16 where the product computes in bf16 and this CPU multiplies such, else fp32;
/// rounding a weight to bf16 adds at most 1/256 of it.
///
/// Uses OpenMP teams of omp_get_max_threads() threads. Thread-safe: products take turns. Scratch
/// memory belongs to the object: a panel and its sums per thread, and x where it is converted.
class PanelProduct {
 public:
  using Kernels = RowProduct::Kernels;
  explicit PanelProduct(Kernels kernels = Kernels::kFastest) : kernels_(kernels) {}

  /// Blocks until y is written. rows, n or k may be 0. @pre the weights are kQ8 or kQ4
  /// @throws Error when oneDNN refuses the product
  void run(const LinearProduct& product);

 private:
  /// What one thread works with.
  struct Worker {
    Matmul matmul;
    Scratch panel;
    Scratch sums;
  };
  struct Panels;

  const void* prepare_x(const LinearProduct& product, Dtype dtype);
  static void multiply_panel(const Panels& panels, std::int64_t column, Worker& worker);

  Kernels kernels_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> workers_;
  Scratch x_;
};

}  // namespace strata::cpu
