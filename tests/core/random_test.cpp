#include "core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace strata {
namespace {

TEST(Philox, GivesTheNumbersOfItsAuthors) {
  using Counter = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}),
            (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomKey, DiffersByNameAndBySeed) {
  EXPECT_EQ(random_key(42, "layers.0.mlp.up"), random_key(42, "layers.0.mlp.up"));
  EXPECT_NE(random_key(42, "layers.0.mlp.up"), random_key(43, "layers.0.mlp.up"));
  EXPECT_NE(random_key(42, "layers.0.mlp.up"), random_key(42, "layers.1.mlp.up"));
}

TEST(FillNormal, GivesTheSameBitsInWhateverPieces) {
  const auto key = random_key(1, "tensor");
  std::vector<float> whole(1003);
  fill_normal(key, 0, 0.02, whole);
  for (const std::size_t piece : {1u, 2u, 7u, 64u}) {
    std::vector<float> parts(whole.size());
    for (std::size_t begin = 0; begin < parts.size(); begin += piece) {
      const std::size_t count = std::min(piece, parts.size() - begin);
      fill_normal(key, begin, 0.02, std::span(parts).subspan(begin, count));
    }
    EXPECT_EQ(parts, whole) << piece;
  }
}

TEST(FillNormal, IsNormal) {
  std::vector<float> values(200'000);
  fill_normal(random_key(7, "tensor"), 12345, 0.5, values);
  double mean = 0;
  double square = 0;
  double fourth = 0;
  double neighbours = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double z = static_cast<double>(values[i]) / 0.5;
    mean += z;
    square += z * z;
    fourth += z * z * z * z;
    if (i > 0) neighbours += z * static_cast<double>(values[i - 1]) / 0.5;
  }
  // Five standard errors: sqrt(1/n), sqrt(2/n), sqrt(96/n), sqrt(1/n).
  const double n = static_cast<double>(values.size());
  EXPECT_NEAR(mean / n, 0, 5 * std::sqrt(1 / n));
  EXPECT_NEAR(square / n, 1, 5 * std::sqrt(2 / n));
  EXPECT_NEAR(fourth / n, 3, 5 * std::sqrt(96 / n));
  EXPECT_NEAR(neighbours / n, 0, 5 * std::sqrt(1 / n));
}

}  // namespace
}  // namespace strata
