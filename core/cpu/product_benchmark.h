#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace strata::cpu {

/// One linear layer: y[rows, out] = x[rows, in] w[out, in]^T, `count` times in a model's layer.
struct LinearShape {
  std::string name;
  std::int64_t rows = 0;
  std::int64_t in = 0;
  std::int64_t out = 0;
  std::int64_t count = 1;
};

/// One product of a linear layer. Rates are floating-point operations per second; those of oneDNN
/// with weights in the compute dtype.
struct ProductRates {
  std::string name;              ///< the layer's
  const char* product;           ///< "forward", "dx" or "dw"
  Dtype weights = Dtype::kBf16;  ///< compute, kQ8 or kQ4
  std::int64_t m = 0, n = 0, k = 0;
  double count = 1;
  double ours = 0;    ///< through Ops
  double plain = 0;   ///< oneDNN on the operands as they lie
  double packed = 0;  ///< oneDNN with the right operand rearranged first, which is counted
  double best() const noexcept { return plain > packed ? plain : packed; }
  double fraction() const noexcept { return ours / best(); }
  double operations() const noexcept {
    return 2.0 * count * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  }
};

/// Forward, dx and dw of every layer, and forward with quantised weights where `compute` is bf16,
/// ours and both ways of oneDNN taking turns for about `seconds` in all, three rounds at least; the
/// best round of each counts, so that other work on the machine disturbs little. Blocks; OpenMP
/// teams of `threads` threads.
std::vector<ProductRates> measure_products(std::span<const LinearShape> layers, Dtype compute,
                                           int threads, double seconds);

/// Operations over the time that all of them with such weights take.
double rate_of_all(std::span<const ProductRates> rates, Dtype weights,
                   double (*rate)(const ProductRates&));

}  // namespace strata::cpu
