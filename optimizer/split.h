#pragma once

#include <bit>
#include <cstdint>

#include "core/tensor.h"

namespace strata {

/// The lossless split of an fp32 master weight into the bf16 weight the model computes with and
/// what is left of it (the float is never stored a second time):
///
///     hi = (bits + 0x8000) >> 16          lo = int16(bits - (hi << 16))          bits = (hi << 16)
///     + lo
///
/// All arithmetic is modulo 2^32, so the join gives back every one of the 2^32 patterns. What `hi`
/// is when it is read as a bf16 of its own:
///   * finite floats: the nearest bf16; a tie goes away from zero (a conversion would go to even,
///   so use
///     `hi` wherever the weight is meant, never bf16(master)). From 0x7f7f8000 (3.396e38) up it is
///     infinity, as in any rounding to nearest. Zeros and infinities keep their sign.
///   * NaN: the NaNs arithmetic makes (0x7fc00000, 0xffc00000) stay NaN. Payloads at the two ends
///   of the
///     range do not, because their pattern has only one `hi` that can be joined again: below
///     0x7f808000 it is infinity, from 0x7fff8000 up it is zero of the other sign. So look for NaN
///     in the gradients or in the joined master, not in `hi`.
struct SplitFloat {
  std::uint16_t hi = 0;
  std::int16_t lo = 0;
};

[[gnu::always_inline]] inline SplitFloat split(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t hi = (bits + 0x8000u) >> 16;
  return {static_cast<std::uint16_t>(hi), static_cast<std::int16_t>(bits - (hi << 16))};
}

[[gnu::always_inline]] inline float join(std::uint16_t hi, std::int16_t lo) noexcept {
  const auto low = static_cast<std::uint32_t>(static_cast<std::int32_t>(lo));
  return std::bit_cast<float>((static_cast<std::uint32_t>(hi) << 16) + low);
}

/// Whether products of the dtype read `hi` as it lies: it is the bf16 weight. Those of another join
/// both halves first.
constexpr bool reads_hi(Dtype compute) noexcept { return compute == Dtype::kBf16; }

/// hi[i], lo[i] = split(values[i]) for i in [0, numel). Nothing may overlap, nothing need be
/// aligned beyond its type; runs on the caller's thread.
void split(const float* values, std::int64_t numel, std::uint16_t* hi, std::int16_t* lo) noexcept;

/// values[i] = join(hi[i], lo[i]) for i in [0, numel), likewise.
void join(const std::uint16_t* hi, const std::int16_t* lo, std::int64_t numel,
          float* values) noexcept;

/// The weights of products that do not read `hi`: the masters in fp32, or rounded to fp16 (nearest,
/// ties to even). @throws Error for another dtype
void join(const std::uint16_t* hi, const std::int16_t* lo, TensorView values);

}  // namespace strata
