#include "optimizer/split.h"

namespace strata {
namespace {

STRATA_MULTIVERSION
void split_loop(const float* __restrict values, std::int64_t numel, std::uint16_t* __restrict hi,
                std::int16_t* __restrict lo) {
  for (std::int64_t i = 0; i < numel; ++i) {
    const SplitFloat halves = split(values[i]);
    hi[i] = halves.hi;
    lo[i] = halves.lo;
  }
}

template <typename T>
STRATA_MULTIVERSION void join_loop(const std::uint16_t* __restrict hi,
                                   const std::int16_t* __restrict lo, std::int64_t numel,
                                   T* __restrict values) {
  for (std::int64_t i = 0; i < numel; ++i) values[i] = T(join(hi[i], lo[i]));
}

}  // namespace

void split(const float* values, std::int64_t numel, std::uint16_t* hi, std::int16_t* lo) noexcept {
  split_loop(values, numel, hi, lo);
}

void join(const std::uint16_t* hi, const std::int16_t* lo, std::int64_t numel,
          float* values) noexcept {
  join_loop(hi, lo, numel, values);
}

void join(const std::uint16_t* hi, const std::int16_t* lo, TensorView values) {
  if (values.dtype() == Dtype::kF16) return join_loop(hi, lo, values.numel(), values.as<f16>());
  join_loop(hi, lo, values.numel(), values.as<float>());
}

}  // namespace strata
