#include "parallel/rounding.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"

namespace strata {
namespace {

TensorView view(std::vector<float>& values) {
  return {values.data(), Dtype::kF32, {static_cast<std::int64_t>(values.size())}};
}
TensorView view(std::vector<bf16>& values) {
  return {values.data(), Dtype::kBf16, {static_cast<std::int64_t>(values.size())}};
}

TEST(Rounding, TakesTheNearestBf16AndTheEvenOneOfTwo) {
  const auto from_bits = [](std::uint32_t bits) { return std::bit_cast<float>(bits); };
  std::vector<float> from{0.0f,
                          -0.0f,
                          1.0f,
                          from_bits(0x3f807fff),  // just under the middle: down
                          from_bits(0x3f808000),  // the middle, 0x3f80 is even: down
                          from_bits(0x3f818000),  // the middle, 0x3f81 is odd: up
                          from_bits(0x3f808001),  // just over the middle: up
                          from_bits(0x7f7fffff),  // the largest float: infinity
                          -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()};
  std::vector<bf16> to(from.size());
  round_to(view(from), view(to));
  const std::vector<std::uint16_t> want{0x0000, 0x8000, 0x3f80, 0x3f80, 0x3f80,
                                        0x3f82, 0x3f81, 0x7f80, 0xff80};
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(std::bit_cast<std::uint16_t>(to[i]), want[i]) << i;
  }
  EXPECT_TRUE(std::isnan(static_cast<float>(to.back()))) << "a NaN must stay one";
}

TEST(Rounding, TakesTheNearestFp16) {
  std::vector<float> from{1.0f, 1.00048828125f, 1.00146484375f, -65520.0f, 3e-8f, 0x1p-24f};
  std::vector<f16> to(from.size());
  round_to(view(from), {to.data(), Dtype::kF16, {static_cast<std::int64_t>(to.size())}});
  const std::vector<std::uint16_t> want{0x3c00, 0x3c00, 0x3c02, 0xfc00, 0x0001, 0x0001};
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(to[i].bits, want[i]) << i;
}

TEST(Rounding, CopiesFp32AsItIsAndAddsInFp32) {
  for (const std::size_t numel : {0u, 1u, 31u, 1003u}) {
    std::vector<float> from(numel);
    std::vector<float> sum(numel);
    for (std::size_t i = 0; i < numel; ++i) {
      from[i] = std::ldexp(1.0f + static_cast<float>(i) * 0x1p-23f, static_cast<int>(i % 40) - 20);
      sum[i] = static_cast<float>(i) - 3.25f;
    }
    std::vector<float> copy(numel);
    round_to(view(from), view(copy));
    EXPECT_EQ(copy, from);
    std::vector<float> want(numel);
    for (std::size_t i = 0; i < numel; ++i) want[i] = sum[i] + from[i];
    add_to(view(from), view(sum));
    EXPECT_EQ(sum, want);
  }
}

TEST(Rounding, RefusesTensorsOfDifferentSize) {
  std::vector<float> three(3);
  std::vector<float> four(4);
  EXPECT_THROW(round_to(view(three), view(four)), Error);
  EXPECT_THROW(add_to(view(three), view(four)), Error);
}

}  // namespace
}  // namespace strata
