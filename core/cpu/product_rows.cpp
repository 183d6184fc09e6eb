#include "core/cpu/product_rows.h"

#include "core/cpu/numeric.h"

namespace strata::cpu {
namespace {

template <typename T>
STRATA_MULTIVERSION void convert_range(const T* __restrict from, float* __restrict to,
                                       std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = load(from[i]);
}

template <typename T>
STRATA_MULTIVERSION void store_range(const float* __restrict from, T* __restrict to,
                                     std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) store(to[i], from[i]);
}

template <typename Bias, typename T>
STRATA_MULTIVERSION void store_range(const float* __restrict from, const Bias* __restrict bias,
                                     T* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) store(to[i], from[i] + load(bias[i]));
}

}  // namespace

void to_floats(Dtype dtype, const void* from, std::int64_t n, float* to) {
  visit_compute_dtype(dtype,
                      [&]<typename T>(T) { convert_range(static_cast<const T*>(from), to, n); });
}

void write_sums(const LinearProduct& product, const float* sums, std::int64_t stride,
                std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) {
  visit_compute_dtype(product.output, [&]<typename T>(T) {
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* from = sums + r * stride;
      T* to = static_cast<T*>(product.y) + (row + r) * product.n + column;
      if (product.bias == nullptr) {
        store_range(from, to, columns);
      } else {
        visit_compute_dtype(product.compute, [&]<typename Bias>(Bias) {
          store_range(from, static_cast<const Bias*>(product.bias) + column, to, columns);
        });
      }
    }
  });
}

}  // namespace strata::cpu
