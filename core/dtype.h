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

template <typename T>
struct DtypeOf;
template <> struct DtypeOf<double> { static constexpr Dtype value = Dtype::kF64; };
template <> struct DtypeOf<float> { static constexpr Dtype value = Dtype::kF32; };
template <> struct DtypeOf<bf16> { static constexpr Dtype value = Dtype::kBf16; };
template <> struct DtypeOf<std::int64_t> { static constexpr Dtype value = Dtype::kI64; };
template <> struct DtypeOf<std::int32_t> { static constexpr Dtype value = Dtype::kI32; };
template <> struct DtypeOf<std::int16_t> { static constexpr Dtype value = Dtype::kI16; };
template <> struct DtypeOf<std::uint8_t> { static constexpr Dtype value = Dtype::kU8; };
template <typename T>
constexpr Dtype dtype_of = DtypeOf<T>::value;

/// Calls `body(T{})` with T = float or bf16, the types a model computes in.
/// @throws Error for any other dtype
template <typename Body>
decltype(auto) visit_compute_dtype(Dtype dtype, Body&& body) {
  if (dtype == Dtype::kF32) return body(float{});
  expects(dtype == Dtype::kBf16, "expected a tensor of fp32 or bf16");
  return body(bf16{});
}

}  // namespace strata
