#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/cpu/numeric.h"

namespace strata::cpu {
namespace {

TEST(Exponential, StaysWithinItsStatedError) {
  double worst = 0.0;
  for (float x = -87.3f; x < 88.7f; x += 1.7e-4f) {
    const double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(exponential(x)) - exact) / exact);
  }
  EXPECT_LE(worst, 2.0e-7);
  EXPECT_GE(worst, 1.0e-8);  // the loop did measure something
}

TEST(Exponential, EndsInZeroInfinityAndNan) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(exponential(0.0f), 1.0f);
  EXPECT_EQ(exponential(-kInfinity), 0.0f);
  EXPECT_EQ(exponential(-104.5f), 0.0f);
  EXPECT_EQ(exponential(-1.0e30f), 0.0f);
  EXPECT_EQ(exponential(89.0f), kInfinity);
  EXPECT_EQ(exponential(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(exponential(std::nanf(""))));
  EXPECT_NEAR(static_cast<double>(exponential(-100.0f)), std::exp(-100.0), 1.5e-45);
}

TEST(Sigmoid, IsExactInBothTails) {
  for (float x = -86.0f; x < 86.0f; x += 0.013f) {
    const double e = std::exp(-static_cast<double>(x));
    const Sigmoid s = sigmoid(x);
    EXPECT_NEAR(static_cast<double>(s.value) * (1.0 + e), 1.0, 5e-7) << x;
    EXPECT_NEAR(static_cast<double>(s.complement) * (1.0 + e) / e, 1.0, 5e-7) << x;
  }
  EXPECT_EQ(sigmoid(-1000.0f).complement, 1.0f);
  EXPECT_EQ(sigmoid(1000.0f).value, 1.0f);
}

TEST(Store, RoundsToBf16LikeTheConversion) {
  for (std::uint32_t high = 0; high < 65536; ++high) {
    for (const std::uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const auto value = std::bit_cast<float>(high << 16 | low);
      bf16 stored;
      store(stored, value);
      ASSERT_EQ(stored.bits, bf16(value).bits) << high << ' ' << low;
    }
  }
}

TEST(SumInLanes, AddsEveryTermOnce) {
  for (std::int64_t n = 0; n < 70; ++n) {
    const float sum = sum_in_lanes(
        n, [](std::int64_t i) __attribute__((always_inline)) { return static_cast<float>(i); });
    EXPECT_EQ(sum, static_cast<float>(n * (n - 1) / 2));
  }
}

}  // namespace
}  // namespace strata::cpu
