#pragma once

#include <bit>
#include <cstdint>

#include "core/dtype.h"

// Scalar building blocks of the loops marked STRATA_MULTIVERSION. Everything here is inlined by
// force, so that it is compiled (and vectorised) for the instruction set of the loop it is used in.

namespace strata::cpu {

[[gnu::always_inline]] inline float load(float value) { return value; }
[[gnu::always_inline]] inline float load(bf16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}
[[gnu::always_inline]] inline float load(f16 value) { return static_cast<float>(value); }
[[gnu::always_inline]] inline void store(float& to, float value) { to = value; }
/// The rounding of bf16(float), written without a branch.
[[gnu::always_inline]] inline void store(bf16& to, float value) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  const bool nan = (word & 0x7fffffffu) > 0x7f800000u;
  const std::uint32_t rounded = word + 0x7fffu + ((word >> 16) & 1u);
  to.bits = static_cast<std::uint16_t>((nan ? word | 0x00400000u : rounded) >> 16);
}
[[gnu::always_inline]] inline void store(f16& to, float value) { to = f16(value); }
/// `value` as T would keep it.
template <typename T>
[[gnu::always_inline]] inline float round_to(float value) {
  T rounded;
  store(rounded, value);
  return load(rounded);
}

/// e^x. Relative error below 2.0e-7 (1.7 units in the last place) where the result is normal; 0
/// below -104, infinity above 88.73, NaN stays NaN. Cephes' polynomial on [-ln2/2, ln2/2]; the
/// power of two is applied in two halves so that both ends of the range come out right.
[[gnu::always_inline]] inline float exponential(float x) {
  constexpr float kRoundingBias = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float low = x < -104.0f ? -104.0f : x;
  const float clamped = low > 89.0f ? 89.0f : low;
  const float biased = clamped * 1.44269504088896341f + kRoundingBias;
  const float multiple = biased - kRoundingBias;
  const float high_part = clamped - multiple * 0.693359375f;
  const float r = high_part - multiple * -2.12194440e-4f;
  float polynomial = 1.9875691500e-4f;
  polynomial = polynomial * r + 1.3981999507e-3f;
  polynomial = polynomial * r + 8.3334519073e-3f;
  polynomial = polynomial * r + 4.1665795894e-2f;
  polynomial = polynomial * r + 1.6666665459e-1f;
  polynomial = polynomial * r + 5.0000001201e-1f;
  const float mantissa = polynomial * (r * r) + r + 1.0f;
  const auto exponent = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(biased) -
                                                  std::bit_cast<std::uint32_t>(kRoundingBias));
  const std::int32_t half = exponent >> 1;
  const auto power = [](std::int32_t n) __attribute__((always_inline)) {
    return std::bit_cast<float>((static_cast<std::uint32_t>(n) + 127u) << 23);
  };
  return mantissa * power(half) * power(exponent - half);
}

/// sigmoid(x) and 1 - sigmoid(x), the latter without cancellation; relative error below 5e-7.
struct Sigmoid {
  float value;
  float complement;
};
[[gnu::always_inline]] inline Sigmoid sigmoid(float x) {
  const float bounded = x < -87.0f ? -87.0f : x;  // keeps e^-x finite
  const float e = exponential(-bounded);
  const float value = 1.0f / (1.0f + e);
  return {value, e * value};
}

/// Sums of many terms are taken in kLanes strands and then pairwise: the order is a property of the
/// length alone, not of the vector width.
constexpr int kLanes = 16;

struct Lanes {
  float strand[kLanes] = {};
};
[[gnu::always_inline]] inline float total(const Lanes& lanes) {
  float sums[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) sums[lane] = lanes.strand[lane];
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  }
  return sums[0];
}

/// Sum of term(i) for i in [0, n), in that order. `term` must be forced inline.
template <typename Term>
[[gnu::always_inline]] inline float sum_in_lanes(std::int64_t n, const Term& term) {
  Lanes lanes;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes.strand[lane] += term(i + lane);
  }
  for (int lane = 0; i < n; ++i, ++lane) lanes.strand[lane] += term(i);
  return total(lanes);
}

}  // namespace strata::cpu
