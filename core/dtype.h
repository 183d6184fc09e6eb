#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"

namespace strata {

enum class Dtype : std::uint8_t { kF64, kF32, kF16, kBf16, kI64, kI32, kI16, kU8, kBool };

constexpr std::size_t size_bytes(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kF64:
    case Dtype::kI64:
      return 8;
    case Dtype::kF32:
    case Dtype::kI32:
      return 4;
    case Dtype::kF16:
    case Dtype::kBf16:
    case Dtype::kI16:
      return 2;
    case Dtype::kU8:
    case Dtype::kBool:
      return 1;
  }
  return 0;
}

/// "fp32", "bf16", ...: the names used in flags, plans and messages.
std::string_view name(Dtype dtype) noexcept;

/// The upper half of a float. Conversion from float rounds to nearest, ties to even; NaN stays NaN.
struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  explicit bf16(float value) noexcept {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const bool nan = (word & 0x7fffffffu) > 0x7f800000u;
    const std::uint32_t rounded = word + 0x7fffu + ((word >> 16) & 1u);
    bits = static_cast<std::uint16_t>((nan ? word | 0x00400000u : rounded) >> 16);
  }
  explicit operator float() const noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

/// IEEE binary16. Conversion from float rounds to nearest, ties to even, through the subnormal
/// numbers; 65520 and above become infinity; NaN stays NaN. Conversion to float is exact. Both are
/// integer operations and one addition, without a branch, for loops that are to be vectorised.
struct f16 {
  std::uint16_t bits = 0;

  f16() = default;
  [[gnu::always_inline]] explicit f16(float value) noexcept {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const auto magnitude = static_cast<std::int32_t>(word & 0x7fffffffu);
    // Below 2^-14 the last place of a half is 2^-24, as is that of the floats from 0.5 on.
    const std::int32_t small =
        std::bit_cast<std::int32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
    const std::int32_t odd = (magnitude >> 13) & 1;
    const std::int32_t normal = (magnitude - (112 << 23) + 0xfff + odd) >> 13;
    const std::int32_t finite = magnitude < 0x38800000 ? small : normal;
    const std::int32_t ordered = magnitude >= 0x47800000 ? 0x7c00 : finite;
    const std::int32_t nan = 0x7e00 | (magnitude >> 13 & 0x3ff);
    const std::int32_t half = magnitude > 0x7f800000 ? nan : ordered;
    bits = static_cast<std::uint16_t>(static_cast<std::uint32_t>(half) | (word >> 16 & 0x8000u));
  }
  [[gnu::always_inline]] explicit operator float() const noexcept {
    const auto magnitude = static_cast<std::int32_t>((bits & 0x7fffu) << 13);
    const std::int32_t normal = magnitude + (112 << 23);
    const std::int32_t special = normal + (112 << 23);  // infinities and NaN
    const std::int32_t small = std::bit_cast<std::int32_t>(
        std::bit_cast<float>(magnitude + (113 << 23)) - std::bit_cast<float>(113 << 23));
    const std::int32_t finite = magnitude < (1 << 23) ? small : normal;
    const std::int32_t word = magnitude < (31 << 23) ? finite : special;
    return std::bit_cast<float>(static_cast<std::uint32_t>(word) | (bits & 0x8000u) << 16);
  }
};

/// Whether a finite value is too large for an f16, which would be infinity.
inline bool exceeds_f16(float value) noexcept {
  const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(value) & 0x7fffffffu;
  return magnitude >= 0x477ff000u && magnitude < 0x7f800000u;
}

template <typename T>
struct DtypeOf;
template <>
struct DtypeOf<double> {
  static constexpr Dtype value = Dtype::kF64;
};
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::kF32;
};
template <>
struct DtypeOf<f16> {
  static constexpr Dtype value = Dtype::kF16;
};
template <>
struct DtypeOf<bf16> {
  static constexpr Dtype value = Dtype::kBf16;
};
template <>
struct DtypeOf<std::int64_t> {
  static constexpr Dtype value = Dtype::kI64;
};
template <>
struct DtypeOf<std::int32_t> {
  static constexpr Dtype value = Dtype::kI32;
};
template <>
struct DtypeOf<std::int16_t> {
  static constexpr Dtype value = Dtype::kI16;
};
template <>
struct DtypeOf<std::uint8_t> {
  static constexpr Dtype value = Dtype::kU8;
};
template <typename T>
constexpr Dtype dtype_of = DtypeOf<T>::value;

/// Calls `body(T{})` with T = float, bf16 or f16, the types a model computes in.
/// @throws Error for any other dtype
template <typename Body>
decltype(auto) visit_compute_dtype(Dtype dtype, Body&& body) {
  if (dtype == Dtype::kF32) return body(float{});
  if (dtype == Dtype::kF16) return body(f16{});
  expects(dtype == Dtype::kBf16, "expected a tensor of fp32, bf16 or fp16");
  return body(bf16{});
}

}  // namespace strata
