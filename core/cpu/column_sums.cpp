#include "core/cpu/column_sums.h"

#include "core/cpu/numeric.h"

namespace strata::cpu {
namespace {

template <typename T>
STRATA_MULTIVERSION void add_elements(const T* __restrict from, float* __restrict to,
                                      std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] += load(from[i]);
}

}  // namespace

template <typename T>
void add_column_sums(const T* x, std::int64_t rows, std::int64_t columns, float* to) {
  add_column_terms(rows, columns, to,
                   [=](std::int64_t row, std::int64_t column, std::int64_t count, float* partial) {
                     add_elements(x + row * columns + column, partial, count);
                   });
}

template void add_column_sums(const float*, std::int64_t, std::int64_t, float*);
template void add_column_sums(const bf16*, std::int64_t, std::int64_t, float*);
template void add_column_sums(const f16*, std::int64_t, std::int64_t, float*);

}  // namespace strata::cpu
