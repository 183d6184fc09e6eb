#pragma once

#include <span>

#include "core/tensor.h"

namespace strata {

// Weights of 8 and 4 bits. Each group of kGroupNumel consecutive elements of a row has a scale; its
// parts lie together, so that a row is read as one stream. Rows are a multiple of a group long.
// Groups have no alignment.
//
//   kQ8  66 bytes: scale (bf16), 64 values v (int8, -127..127);     element = scale * v
//   kQ4  35 bytes: scale (bf16), zero point z (uint8, 0..15), 32 bytes: byte i holds the values v
//        (0..15) of elements i (low half) and i + 32 (high half);   element = scale * (v - z)
//
// Of normally distributed weights, kQ8 loses 0.55 % of their deviation and kQ4 9 %: at 4 bits it
// pays to fit the values to the range of the group, at 8 it does not. A symmetric group has the
// zero point 8. Zero is exact.

/// Rounds to the nearest value, halves to even. The scale is rounded up, so that no element is off
/// by more than half of it. The same bytes on every machine. Blocks; `to` has the bytes of
/// `from.size()` elements. @throws Error where a number is not finite, or the size no whole groups
void quantize(std::span<const float> from, Dtype dtype, std::byte* to);

/// The elements as the products use them, exactly. @pre `to.size()` is a multiple of kGroupNumel
void dequantize(const std::byte* from, Dtype dtype, std::span<float> to);

}  // namespace strata
