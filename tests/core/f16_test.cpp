// Conversions between float and f16, against arithmetic in double.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/cpu/numeric.h"
#include "core/dtype.h"

namespace strata {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

f16 from_bits(std::uint32_t bits) {
  f16 half;
  half.bits = static_cast<std::uint16_t>(bits);
  return half;
}

/// The value of a finite pattern, by the definition of the format.
double value_of(std::uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 0x1f);
  const double fraction = static_cast<double>(bits & 0x3ff) / 1024.0;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -14) : std::ldexp(1.0 + fraction, exponent - 15);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

bool is_nan(std::uint32_t bits) { return (bits & 0x7fff) > 0x7c00; }

TEST(F16, ConvertsEveryPatternToItsValueAndBack) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto value = static_cast<float>(from_bits(bits));
    const f16 back(value);
    if (is_nan(bits)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(is_nan(back.bits)) << bits;
      ASSERT_EQ(back.bits & 0x8000, bits & 0x8000);
      continue;
    }
    if ((bits & 0x7fff) == 0x7c00) {
      ASSERT_EQ(value, (bits & 0x8000) != 0 ? -kInfinity : kInfinity);
    } else {
      ASSERT_EQ(static_cast<double>(value), value_of(bits)) << bits;
    }
    ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0) << bits;
    ASSERT_EQ(back.bits, bits);
  }
}

TEST(F16, RoundsToTheNearestAndTiesToEven) {
  for (std::uint32_t low = 0; low < 0x7c00; ++low) {
    const double below = value_of(low);
    const double above = low == 0x7bff ? 65536.0 : value_of(low + 1);
    const auto middle = static_cast<float>((below + above) / 2);  // exact: one more digit
    const std::uint32_t even = (low & 1) == 0 ? low : low + 1;
    for (const float sign : {1.0f, -1.0f}) {
      const std::uint32_t signed_bit = sign < 0 ? 0x8000u : 0u;
      ASSERT_EQ(f16(sign * middle).bits, even | signed_bit) << middle;
      ASSERT_EQ(f16(sign * std::nextafter(middle, 0.0f)).bits, low | signed_bit) << middle;
      ASSERT_EQ(f16(sign * std::nextafter(middle, kInfinity)).bits, (low + 1) | signed_bit)
          << middle;
    }
  }
}

TEST(F16, OverflowsToInfinityAndUnderflowsToZero) {
  EXPECT_EQ(f16(65504.0f).bits, 0x7bff);
  EXPECT_EQ(f16(std::nextafter(65520.0f, 0.0f)).bits, 0x7bff);
  for (const float large : {65520.0f, 65536.0f, 1e30f, std::numeric_limits<float>::max()}) {
    EXPECT_EQ(f16(large).bits, 0x7c00) << large;
    EXPECT_EQ(f16(-large).bits, 0xfc00) << large;
    EXPECT_TRUE(exceeds_f16(large) && exceeds_f16(-large)) << large;
  }
  EXPECT_FALSE(exceeds_f16(std::nextafter(65520.0f, 0.0f)));
  EXPECT_FALSE(exceeds_f16(kInfinity)) << "it stays what it is";
  EXPECT_FALSE(exceeds_f16(std::nanf("")));
  for (const float small : {0x1p-25f, 0x1p-26f, 1e-30f, 0x1p-149f, 0.0f}) {
    EXPECT_EQ(f16(small).bits, 0x0000) << small;
    EXPECT_EQ(f16(-small).bits, 0x8000) << small;
  }
  EXPECT_EQ(f16(std::nextafter(0x1p-25f, 1.0f)).bits, 0x0001);
}

/// Loops as kernels have them, compiled for this processor.
STRATA_MULTIVERSION void to_half(const float* __restrict from, f16* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) cpu::store(to[i], from[i]);
}
STRATA_MULTIVERSION void to_float(const f16* __restrict from, float* __restrict to,
                                  std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = cpu::load(from[i]);
}

TEST(F16, VectorisedLoopsGiveTheSameBits) {
  std::vector<float> values;
  for (std::uint32_t high = 0; high < 65536; ++high) {
    for (const std::uint32_t low : {0u, 1u, 0x0fffu, 0x1000u, 0x1001u, 0x3000u, 0xffffu}) {
      values.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  std::vector<f16> halves(values.size());
  to_half(values.data(), halves.data(), static_cast<std::int64_t>(values.size()));
  std::vector<float> widened(values.size());
  to_float(halves.data(), widened.data(), static_cast<std::int64_t>(values.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    volatile float one = values[i];  // not to be part of a vector
    ASSERT_EQ(halves[i].bits, f16(one).bits) << values[i];
    ASSERT_EQ(std::bit_cast<std::uint32_t>(widened[i]),
              std::bit_cast<std::uint32_t>(static_cast<float>(halves[i])));
  }
}

}  // namespace
}  // namespace strata
