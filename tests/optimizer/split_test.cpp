#include "optimizer/split.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/dtype.h"

namespace strata {
namespace {

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }

/// The bf16 weight a reader of `hi` sees.
float high_half(float value) { return float_of(std::uint32_t{split(value).hi} << 16); }

TEST(Split, GivesBackEveryBitOfEveryUpperHalfAndTheInterestingLowerHalves) {
  std::vector<std::uint32_t> lower;
  for (std::uint32_t bit = 0; bit < 16; ++bit) {
    for (const std::uint32_t near : {(1u << bit) - 1, 1u << bit, (1u << bit) + 1}) {
      lower.push_back(near & 0xffffu);
      lower.push_back(~near & 0xffffu);
    }
  }
  std::vector<float> values(65536), joined(65536);
  std::vector<std::uint16_t> hi(65536);
  std::vector<std::int16_t> lo(65536);
  for (const std::uint32_t low : lower) {
    for (std::uint32_t upper = 0; upper < 65536; ++upper) {
      values[upper] = float_of(upper << 16 | low);
    }
    split(values.data(), 65536, hi.data(), lo.data());
    join(hi.data(), lo.data(), 65536, joined.data());
    for (std::uint32_t upper = 0; upper < 65536; ++upper) {
      ASSERT_EQ(bits_of(joined[upper]), upper << 16 | low);
      ASSERT_EQ(split(values[upper]).hi, hi[upper]);
      ASSERT_EQ(split(values[upper]).lo, lo[upper]);
    }
  }
}

TEST(Split, GivesBackEveryLowerHalfWhereTheUpperOneIsSpecial) {
  for (const std::uint32_t upper : {0x0000u, 0x007fu, 0x0080u, 0x3f80u, 0x7f7fu, 0x7f80u, 0x7fffu,
                                    0x8000u, 0x8080u, 0xbf80u, 0xff7fu, 0xff80u, 0xffffu}) {
    for (std::uint32_t low = 0; low < 65536; ++low) {
      const SplitFloat halves = split(float_of(upper << 16 | low));
      ASSERT_EQ(bits_of(join(halves.hi, halves.lo)), upper << 16 | low);
    }
  }
}

TEST(Split, HandlesAnyLengthAndAlignmentWithoutTouchingNeighbours) {
  const std::vector<float> values(100, 1.2345678f);
  for (std::int64_t numel = 0; numel <= 70; ++numel) {
    for (std::int64_t offset = 0; offset < 3; ++offset) {
      std::vector<std::uint16_t> hi(80, 0xabcd);
      std::vector<std::int16_t> lo(80, 0x1234);
      std::vector<float> joined(80, -7.0f);
      split(values.data() + 1, numel, hi.data() + offset, lo.data() + offset);
      join(hi.data() + offset, lo.data() + offset, numel, joined.data() + offset);
      for (std::int64_t i = 0; i < 80; ++i) {
        const bool inside = i >= offset && i < offset + numel;
        const auto at = static_cast<std::size_t>(i);
        ASSERT_EQ(hi[at], inside ? split(values[0]).hi : 0xabcd);
        ASSERT_EQ(lo[at], inside ? split(values[0]).lo : 0x1234);
        ASSERT_EQ(joined[at], inside ? values[0] : -7.0f);
      }
    }
  }
}

TEST(Split, JoinsToFp32AndRoundsToFp16) {
  const std::vector<float> masters{1.0f, -1.00048828125f, 1.00146484375f, 3.3e-6f, 65519.0f, 7e4f};
  std::vector<std::uint16_t> hi(masters.size());
  std::vector<std::int16_t> lo(masters.size());
  const auto numel = static_cast<std::int64_t>(masters.size());
  split(masters.data(), numel, hi.data(), lo.data());
  std::vector<float> whole(masters.size());
  join(hi.data(), lo.data(), {whole.data(), Dtype::kF32, {numel}});
  EXPECT_EQ(whole, masters);
  std::vector<f16> half(masters.size());
  join(hi.data(), lo.data(), {half.data(), Dtype::kF16, {numel}});
  for (std::size_t i = 0; i < masters.size(); ++i) EXPECT_EQ(half[i].bits, f16(masters[i]).bits);
  EXPECT_EQ(static_cast<float>(half[1]), -1.0f) << "a tie goes to even, also where hi has it up";
  EXPECT_THROW(join(hi.data(), lo.data(), {half.data(), Dtype::kBf16, {numel}}), Error)
      << "hi is the bf16 weight, and its ties are others";
}

TEST(Split, RoundsFiniteWeightsToTheNearestBf16AndTiesAwayFromZero) {
  for (std::uint32_t bits = 0x00000001; bits < 0x7f7f8000u; bits += 9973) {
    const float value = float_of(bits);
    const bool tie = (bits & 0xffffu) == 0x8000u;
    if (!tie) {
      ASSERT_EQ(high_half(value), static_cast<float>(bf16(value)));
    }
    ASSERT_EQ(high_half(-value), -high_half(value));
  }
  EXPECT_EQ(high_half(1.00390625f), 1.0078125f);  // half a unit: up, where bf16() goes down to even
  EXPECT_EQ(high_half(-1.00390625f), -1.0078125f);
  EXPECT_EQ(high_half(1.99999988f), 2.0f);  // the carry reaches the exponent
}

TEST(Split, KeepsZerosInfinitiesAndTheirSigns) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(split(0.0f).hi, 0x0000);
  EXPECT_EQ(split(-0.0f).hi, 0x8000);
  EXPECT_EQ(high_half(kInfinity), kInfinity);
  EXPECT_EQ(high_half(-kInfinity), -kInfinity);
  EXPECT_EQ(split(-kInfinity).lo, 0);
}

TEST(Split, ShowsTheLargestFloatsAsInfinityAndStillGivesThemBack) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(high_half(float_of(0x7f7f7fff)), float_of(0x7f7f0000));
  EXPECT_EQ(high_half(float_of(0x7f7f8000)), kInfinity);
  EXPECT_EQ(high_half(-std::numeric_limits<float>::max()), -kInfinity);
  const SplitFloat largest = split(std::numeric_limits<float>::max());
  EXPECT_EQ(join(largest.hi, largest.lo), std::numeric_limits<float>::max());
}

TEST(Split, KeepsTheNansOfArithmeticAndHidesThoseWhosePayloadWraps) {
  EXPECT_TRUE(std::isnan(high_half(float_of(0x7fc00000))));
  EXPECT_TRUE(std::isnan(high_half(float_of(0xffc00000))));
  EXPECT_TRUE(std::isnan(high_half(float_of(0x7f808000))));
  EXPECT_TRUE(std::isnan(high_half(float_of(0x7fff7fff))));
  EXPECT_TRUE(std::isinf(high_half(float_of(0x7f800001))));
  EXPECT_EQ(split(float_of(0x7fff8000)).hi, 0x8000);  // reads as -0
  EXPECT_EQ(split(float_of(0xffff8000)).hi, 0x0000);  // reads as +0
}

}  // namespace
}  // namespace strata
