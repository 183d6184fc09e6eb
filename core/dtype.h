#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"

namespace strata {

/// kQ8 and kQ4 are weights of 8 and 4 bits in groups of 64 (core/group_quantization.h). kQ8x32 and
/// kQ4x32 are the same, 32 rows interleaved as products on CPUs read them (core/cpu/byte_kernels.h):
/// in memory only.
enum class Dtype : std::uint8_t {
  kF64, kF32, kF16, kBf16, kI64, kI32, kI16, kU8, kBool, kQ8, kQ4, kQ8x32, kQ4x32
};

/// Bytes of one element; 0 for quantised dtypes, of which only whole groups have a size:
/// storage_bytes().
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
    case Dtype::kQ8:
    case Dtype::kQ4:
    case Dtype::kQ8x32:
    case Dtype::kQ4x32:
      return 0;
  }
  return 0;
}

constexpr bool is_interleaved(Dtype dtype) noexcept {
  return dtype == Dtype::kQ8x32 || dtype == Dtype::kQ4x32;
}
constexpr bool is_quantized(Dtype dtype) noexcept {
  return dtype == Dtype::kQ8 || dtype == Dtype::kQ4 || is_interleaved(dtype);
}
/// Consecutive elements that share a scale, in dtypes that are quantised.
inline constexpr std::int64_t kGroupNumel = 64;
/// Bytes of a group: its scale (bf16), kQ4's zero point, the values.
constexpr std::size_t group_bytes(Dtype dtype) noexcept {
  if (dtype == Dtype::kQ8 || dtype == Dtype::kQ8x32) return 2 + 64;
  return dtype == Dtype::kQ4 || dtype == Dtype::kQ4x32 ? 2 + 1 + 32 : 0;
}
/// Bytes of `numel` consecutive elements; for quantised dtypes of all groups they touch.
constexpr std::size_t storage_bytes(Dtype dtype, std::int64_t numel) noexcept {
  if (!is_quantized(dtype)) return static_cast<std::size_t>(numel) * size_bytes(dtype);
  return static_cast<std::size_t>((numel + kGroupNumel - 1) / kGroupNumel) * group_bytes(dtype);
}

/// "fp32", "bf16", "q4", ...: the names used in flags, plans and messages.
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
/// numbers; 65520 and above become infinity; NaN stays NaN. Conversion to float is exact.
///
/// Both are written for loops that are to be vectorised: choices are masks (a number is negative,
/// shifted by 31), since a compiler makes branches of others and moves the floating-point
/// operations into them, which no loop of vectors has room for. No float on the way is subnormal
/// unless the first is.
struct f16 {
  std::uint16_t bits = 0;

  f16() = default;
  [[gnu::always_inline]] explicit f16(float value) noexcept {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const auto magnitude = static_cast<std::int32_t>(word & 0x7fffffffu);
    // A sum of 4 |value| and 2^15 times its power of two, or 2^-14 below that, has its last place
    // where the half has it: the addition rounds. From 2^16 on, 4 |value| is infinity on its way.
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f * 0x1p-110f;
    const std::int32_t power = magnitude & 0x7f800000;
    const std::int32_t bounded = power < (113 << 23) ? 113 << 23 : power;
    const float anchor = std::bit_cast<float>(static_cast<std::uint32_t>(bounded) + (15u << 23));
    const auto sum = std::bit_cast<std::uint32_t>(anchor + scaled);
    const std::uint32_t half = ((sum >> 13 & 0x7c00u) + (sum & 0xfffu)) & 0x7fffu;
    const std::int32_t is_nan = (0x7f800000 - magnitude) >> 31;
    bits = static_cast<std::uint16_t>(half | static_cast<std::uint32_t>(is_nan & 0x7e00) |
                                      (word >> 16 & 0x8000u));
  }
  [[gnu::always_inline]] explicit operator float() const noexcept {
    const auto magnitude = static_cast<std::int32_t>((bits & 0x7fffu) << 13);
    // A subnormal half is what a float of exponent -14 has beyond its leading one.
    const std::int32_t is_subnormal = (magnitude - (1 << 23)) >> 31;
    const std::int32_t base = (112 << 23) + (is_subnormal & (1 << 23));
    const float one = std::bit_cast<float>(is_subnormal & (113 << 23));
    const auto number = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude + base) - one);
    const std::int32_t is_finite = (magnitude - (31 << 23)) >> 31;
    const auto special = static_cast<std::uint32_t>(~is_finite & (112 << 23));  // infinity and NaN
    return std::bit_cast<float>((number + special) | (bits & 0x8000u) << 16);
  }
};

/// Whether a finite value is too large for an f16, which would be infinity.
inline bool exceeds_f16(float value) noexcept {
  const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(value) & 0x7fffffffu;
  return magnitude >= 0x477ff000u && magnitude < 0x7f800000u;
}

template <typename T>
struct DtypeOf;
template <> struct DtypeOf<double> { static constexpr Dtype value = Dtype::kF64; };
template <> struct DtypeOf<float> { static constexpr Dtype value = Dtype::kF32; };
template <> struct DtypeOf<f16> { static constexpr Dtype value = Dtype::kF16; };
template <> struct DtypeOf<bf16> { static constexpr Dtype value = Dtype::kBf16; };
template <> struct DtypeOf<std::int64_t> { static constexpr Dtype value = Dtype::kI64; };
template <> struct DtypeOf<std::int32_t> { static constexpr Dtype value = Dtype::kI32; };
template <> struct DtypeOf<std::int16_t> { static constexpr Dtype value = Dtype::kI16; };
template <> struct DtypeOf<std::uint8_t> { static constexpr Dtype value = Dtype::kU8; };
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
