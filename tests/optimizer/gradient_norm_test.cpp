#include "optimizer/gradient_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "tests/optimizer/sections.h"

namespace strata {
namespace {

using test::normal;

constexpr std::int64_t kNumel = 5 * kNormLeaf + 1003;

ConstTensorView view(const std::vector<float>& values, std::int64_t begin, std::int64_t numel) {
  return {values.data() + begin, Dtype::kF32, {numel}};
}

GradientNorm norm_of(const std::vector<float>& values, std::int64_t chunk, int threads) {
  const auto numel = static_cast<std::int64_t>(values.size());
  GradientNorm norm;
  for (std::int64_t begin = 0; begin < numel; begin += chunk) {
    add_to_norm(norm, view(values, begin, std::min(chunk, numel - begin)), begin, threads);
  }
  return norm;
}

TEST(GradientNorm, IsTheSumOfSquaresInDouble) {
  for (const std::int64_t numel : {0L, 1L, 31L, 33L, 1003L, kNumel}) {
    const std::vector<float> values = normal(numel, 11, 3.0f);
    long double want = 0.0L;
    for (const float value : values) want += static_cast<long double>(value) * value;
    const GradientNorm norm = norm_of(values, kNumel, 1);
    // 2048 additions per lane, 5 levels and 6 leaves, half a unit in the last place each
    EXPECT_NEAR(norm.sum_of_squares, static_cast<double>(want),
                static_cast<double>(want) * 2.3e-13);
    EXPECT_TRUE(norm.finite);
  }
}

TEST(GradientNorm, DoesNotDependOnChunksOrThreads) {
  const std::vector<float> values = normal(kNumel, 12);
  const GradientNorm want = norm_of(values, kNumel, 1);
  for (const int threads : test::thread_counts()) {
    for (const std::int64_t leaves : {1, 2, 3, 6}) {
      EXPECT_EQ(norm_of(values, leaves * kNormLeaf, threads).sum_of_squares, want.sum_of_squares)
          << leaves << " leaves per chunk, " << threads << " threads";
    }
  }
}

TEST(GradientNorm, DoesNotDependOnAlignmentOrPadding) {
  const std::vector<float> values = normal(kNumel, 13);
  const double want = norm_of(values, kNumel, 1).sum_of_squares;
  std::vector<float> shifted(values.size() + 1);
  std::copy(values.begin(), values.end(), shifted.begin() + 1);
  GradientNorm norm;
  add_to_norm(norm, view(shifted, 1, kNumel), 0, 1);
  EXPECT_EQ(norm.sum_of_squares, want);
  std::vector<float> padded = values;
  padded.resize(values.size() + 2 * kNormLeaf, 0.0f);
  EXPECT_EQ(norm_of(padded, kNormLeaf, 1).sum_of_squares, want);
}

template <typename T>
class ShortGradientNorm : public testing::Test {};
using ShortTypes = testing::Types<bf16, f16>;
TYPED_TEST_SUITE(ShortGradientNorm, ShortTypes);

TYPED_TEST(ShortGradientNorm, IsThatOfTheFloatsTheyStandFor) {
  const std::vector<float> values = normal(kNumel, 14);
  std::vector<TypeParam> halves;
  std::vector<float> rounded;
  for (const float value : values) {
    halves.emplace_back(value);
    rounded.push_back(static_cast<float>(halves.back()));
  }
  GradientNorm norm;
  add_to_norm(norm, {halves.data(), dtype_of<TypeParam>, {kNumel}}, 0, 1);
  EXPECT_EQ(norm.sum_of_squares, norm_of(rounded, kNumel, 1).sum_of_squares);
  EXPECT_TRUE(norm.finite);
  halves[77777] = TypeParam(std::numeric_limits<float>::infinity());
  add_to_norm(norm, {halves.data(), dtype_of<TypeParam>, {kNumel}}, 0, 1);
  EXPECT_FALSE(norm.finite);
}

TEST(GradientNorm, FindsANonFiniteValueAnywhere) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), kInfinity, -kInfinity}) {
    for (const std::int64_t at : {std::int64_t{0}, std::int64_t{31}, kNormLeaf, kNumel - 1}) {
      std::vector<float> values(kNumel, 1.0f);
      values[static_cast<std::size_t>(at)] = bad;
      EXPECT_FALSE(norm_of(values, kNormLeaf, 1).finite) << bad << " at " << at;
    }
  }
}

TEST(GradientNorm, TheLargestFloatsAreStillFinite) {
  const std::vector<float> values(kNumel, std::numeric_limits<float>::max());
  const GradientNorm norm = norm_of(values, kNumel, 1);
  EXPECT_TRUE(norm.finite);
  EXPECT_FALSE(decide_update(std::sqrt(norm.sum_of_squares), norm.finite, 1.0).skip);
}

TEST(GradientNorm, RefusesChunksThatCutALeafAndOtherDtypes) {
  const std::vector<float> values(10);
  GradientNorm norm;
  EXPECT_THROW(add_to_norm(norm, view(values, 0, 10), 10, 1), Error);
  EXPECT_THROW(add_to_norm(norm, view(values, 0, 10), -kNormLeaf, 1), Error);
  EXPECT_THROW(add_to_norm(norm, view(values, 0, 10), 0, 0), Error);
  EXPECT_THROW(add_to_norm(norm, {values.data(), Dtype::kI32, {10}}, 0, 1), Error);
}

TEST(Clipping, ScalesGradientsAsTorchDoes) {
  const nlohmann::json fixture = test::read_fixture();
  ASSERT_FALSE(fixture.at("clips").empty());
  for (const nlohmann::json& item : fixture.at("clips")) {
    const auto gradient = item.at("gradient").get<std::vector<float>>();
    const auto clipped = item.at("clipped").get<std::vector<float>>();
    const double norm = std::sqrt(norm_of(gradient, kNormLeaf, 1).sum_of_squares);
    EXPECT_NEAR(norm, item.at("norm").get<double>(), 1e-7 * norm);
    const UpdateDecision decision = decide_update(norm, true, item.at("max_norm"));
    EXPECT_FALSE(decision.skip);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      EXPECT_NEAR(gradient[i] * decision.scale, clipped[i], 3e-7 * std::abs(clipped[i]));
    }
  }
}

TEST(Clipping, LeavesSmallNormsAloneAndZeroMeansNever) {
  EXPECT_EQ(decide_update(0.5, true, 1.0).scale, 1.0f);
  EXPECT_EQ(decide_update(0.0, true, 1.0).scale, 1.0f);
  EXPECT_EQ(decide_update(1e6, true, 0.0).scale, 1.0f);
  EXPECT_FLOAT_EQ(decide_update(4.0, true, 1.0).scale, 0.25f);
}

TEST(Clipping, SkipsAnUpdateThatIsNotFiniteAndRefusesANegativeLimit) {
  EXPECT_TRUE(decide_update(1.0, false, 1.0).skip);
  EXPECT_TRUE(decide_update(std::nan(""), true, 1.0).skip);
  EXPECT_TRUE(decide_update(INFINITY, true, 0.0).skip);
  EXPECT_THROW(decide_update(1.0, true, -1.0), UsageError);
  EXPECT_THROW(decide_update(1.0, true, std::nan("")), UsageError);
}

}  // namespace
}  // namespace strata
