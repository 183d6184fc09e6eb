#include "core/group_quantization.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace strata {
namespace {

constexpr std::size_t kGroup = kGroupNumel;
constexpr std::size_t kHalf = kGroup / 2;

/// The least bf16 that is not below `value`. @pre value >= 0, finite
bf16 round_up(float value) {
  bf16 rounded;
  const auto word = std::bit_cast<std::uint32_t>(value);
  rounded.bits = static_cast<std::uint16_t>((word + 0xffffu) >> 16);
  return rounded;
}

float divide(float value, float scale) { return scale > 0.0f ? value / scale : 0.0f; }

void put_scale(bf16 scale, std::byte* to) { std::memcpy(to, &scale.bits, sizeof scale.bits); }
[[gnu::always_inline]] inline float get_scale(const std::byte* from) {
  std::uint16_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

void quantize_q8(const float* from, std::byte* to) {
  float largest = 0.0f;
  for (std::size_t i = 0; i < kGroup; ++i) largest = std::max(largest, std::abs(from[i]));
  const bf16 scale = round_up(largest / 127.0f);
  put_scale(scale, to);
  for (std::size_t i = 0; i < kGroup; ++i) {
    const float value = std::nearbyint(divide(from[i], static_cast<float>(scale)));
    to[2 + i] =
        static_cast<std::byte>(static_cast<std::int8_t>(std::clamp(value, -127.0f, 127.0f)));
  }
}

void quantize_q4(const float* from, std::byte* to) {
  float least = 0.0f;  // the range holds zero, which is then exact
  float largest = 0.0f;
  for (std::size_t i = 0; i < kGroup; ++i) {
    least = std::min(least, from[i]);
    largest = std::max(largest, from[i]);
  }
  const bf16 scale = round_up(largest / 15.0f - least / 15.0f);
  const float step = static_cast<float>(scale);
  const float zero = std::clamp(std::nearbyint(divide(-least, step)), 0.0f, 15.0f);
  put_scale(scale, to);
  to[2] = static_cast<std::byte>(static_cast<std::uint8_t>(zero));
  const auto value = [&](std::size_t i) {
    const float nearest = std::nearbyint(divide(from[i], step)) + zero;
    return static_cast<unsigned>(std::clamp(nearest, 0.0f, 15.0f));
  };
  for (std::size_t i = 0; i < kHalf; ++i) {
    to[3 + i] = static_cast<std::byte>(value(i) | value(i + kHalf) << 4);
  }
}

STRATA_MULTIVERSION void dequantize_q8(const std::byte* __restrict from, float* __restrict to,
                                       std::int64_t groups) {
  for (; groups > 0; --groups, from += group_bytes(Dtype::kQ8), to += kGroup) {
    const float scale = get_scale(from);
    const auto* values = reinterpret_cast<const signed char*>(from + 2);
    for (std::size_t i = 0; i < kGroup; ++i) to[i] = scale * static_cast<float>(values[i]);
  }
}

STRATA_MULTIVERSION void dequantize_q4(const std::byte* __restrict from, float* __restrict to,
                                       std::int64_t groups) {
  for (; groups > 0; --groups, from += group_bytes(Dtype::kQ4), to += kGroup) {
    const float scale = get_scale(from);
    const auto zero = std::to_integer<int>(from[2]);
    const auto* pairs = reinterpret_cast<const unsigned char*>(from + 3);
    for (std::size_t i = 0; i < kHalf; ++i) {
      to[i] = scale * static_cast<float>((pairs[i] & 15) - zero);
    }
    for (std::size_t i = 0; i < kHalf; ++i) {
      to[i + kHalf] = scale * static_cast<float>((pairs[i] >> 4) - zero);
    }
  }
}

void expect_whole_groups(std::size_t numel, Dtype dtype) {
  expects(dtype == Dtype::kQ8 || dtype == Dtype::kQ4, "a quantised dtype is q8 or q4");
  expects(numel % kGroup == 0, "rows of quantised weights must be a multiple of 64 long");
}

}  // namespace

void quantize(std::span<const float> from, Dtype dtype, std::byte* to) {
  expect_whole_groups(from.size(), dtype);
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (std::isfinite(from[i])) continue;
    throw Error(fmt::format("cannot quantise to {}: element {} is {}", name(dtype), i, from[i]));
  }
  for (std::size_t begin = 0; begin < from.size(); begin += kGroup, to += group_bytes(dtype)) {
    if (dtype == Dtype::kQ8) quantize_q8(from.data() + begin, to);
    if (dtype == Dtype::kQ4) quantize_q4(from.data() + begin, to);
  }
}

void dequantize(const std::byte* from, Dtype dtype, std::span<float> to) {
  expect_whole_groups(to.size(), dtype);
  const auto groups = static_cast<std::int64_t>(to.size() / kGroup);
  if (dtype == Dtype::kQ8) dequantize_q8(from, to.data(), groups);
  if (dtype == Dtype::kQ4) dequantize_q4(from, to.data(), groups);
}

}  // namespace strata
