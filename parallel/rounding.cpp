#include "parallel/rounding.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace strata {
namespace {

STRATA_MULTIVERSION void round_to_bf16(const float* __restrict from, std::int64_t numel,
                                       bf16* __restrict to) {
  for (std::int64_t i = 0; i < numel; ++i) to[i] = bf16(from[i]);
}

STRATA_MULTIVERSION void round_to_f16(const float* __restrict from, std::int64_t numel,
                                      f16* __restrict to) {
  for (std::int64_t i = 0; i < numel; ++i) to[i] = f16(from[i]);
}

STRATA_MULTIVERSION void add(const float* __restrict from, std::int64_t numel,
                             float* __restrict sum) {
  for (std::int64_t i = 0; i < numel; ++i) sum[i] += from[i];
}

}  // namespace

void round_to(ConstTensorView from, TensorView to) {
  expects(from.numel() == to.numel(), "rounding needs two tensors of equal size");
  if (to.dtype() == Dtype::kBf16) {
    round_to_bf16(from.as<float>(), from.numel(), to.as<bf16>());
  } else if (to.dtype() == Dtype::kF16) {
    round_to_f16(from.as<float>(), from.numel(), to.as<f16>());
  } else {
    std::copy_n(from.as<float>(), from.numel(), to.as<float>());
  }
}

void round_to(const std::byte* from, Dtype dtype, TensorView to) {
  if (dtype == to.dtype()) {
    std::memcpy(to.data(), from, to.bytes());
    return;
  }
  constexpr std::int64_t kPiece = 1024;
  visit_compute_dtype(dtype, [&]<typename T>(T) {
    std::array<T, kPiece> stored;
    std::array<float, kPiece> values;
    for (std::int64_t begin = 0; begin < to.numel(); begin += kPiece) {
      const std::int64_t numel = std::min(kPiece, to.numel() - begin);
      std::memcpy(stored.data(), from + static_cast<std::size_t>(begin) * sizeof(T),
                  static_cast<std::size_t>(numel) * sizeof(T));
      std::transform(stored.begin(), stored.begin() + numel, values.begin(),
                     [](T value) { return static_cast<float>(value); });
      round_to({values.data(), Dtype::kF32, {numel}}, to.flat(begin, numel));
    }
  });
}

void add_to(ConstTensorView from, TensorView sum) {
  expects(from.numel() == sum.numel(), "a sum needs two tensors of equal size");
  add(from.as<float>(), from.numel(), sum.as<float>());
}

}  // namespace strata
