#include "core/group_quantization.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "tests/support/guarded_tensor.h"

namespace strata {
namespace {

std::vector<float> floats(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

struct Rounded {
  std::vector<std::byte> stored;
  std::vector<float> values;
};

Rounded round_trip(const std::vector<float>& from, Dtype dtype) {
  const auto numel = static_cast<std::int64_t>(from.size());
  Rounded result{std::vector<std::byte>(storage_bytes(dtype, numel)),
                 std::vector<float>(from.size())};
  quantize(from, dtype, result.stored.data());
  dequantize(result.stored.data(), dtype, result.values);
  return result;
}

double scale_of(const Rounded& rounded, Dtype dtype, std::size_t element) {
  bf16 scale;
  std::memcpy(&scale, rounded.stored.data() + element / kGroupNumel * group_bytes(dtype),
              sizeof scale);
  return static_cast<double>(static_cast<float>(scale));
}

/// Root of the mean square of what was lost, of numbers whose deviation is 1.
double loss(const std::vector<float>& from, const std::vector<float>& to) {
  double sum = 0;
  for (std::size_t i = 0; i < from.size(); ++i) {
    const double error = static_cast<double>(from[i]) - static_cast<double>(to[i]);
    sum += error * error;
  }
  return std::sqrt(sum / static_cast<double>(from.size()));
}

class GroupQuantization : public testing::TestWithParam<Dtype> {};

TEST_P(GroupQuantization, LosesHalfAScaleAtMost) {
  for (const double deviation : {1e-30, 0.02, 1.0, 1e30}) {
    for (const double mean : {0.0, 0.5, -3.0}) {
      std::vector<double> values = test::normal_values(kGroupNumel * 50, 1, deviation);
      for (double& value : values) value += mean * deviation;
      const std::vector<float> from = floats(values);
      const Rounded to = round_trip(from, GetParam());
      for (std::size_t i = 0; i < from.size(); ++i) {
        const double error =
            std::abs(static_cast<double>(from[i]) - static_cast<double>(to.values[i]));
        ASSERT_LE(error, scale_of(to, GetParam(), i) * (0.5 + 1e-5)) << "element " << i;
      }
    }
  }
}

TEST_P(GroupQuantization, KeepsWhatItCanHoldAndZero) {
  std::vector<float> from(3 * kGroupNumel);  // the last group holds zeros
  const int count = GetParam() == Dtype::kQ8 ? 255 : 16;
  for (int i = 0; i < 2 * kGroupNumel; ++i) {
    const int value = i % kGroupNumel == 0 ? count - 1 : i % kGroupNumel == 1 ? 0 : i * 7 % count;
    from[static_cast<std::size_t>(i)] = 0.25f * static_cast<float>(value - count / 2);
  }
  EXPECT_EQ(round_trip(from, GetParam()).values, from);
}

TEST_P(GroupQuantization, RefusesWhatHasNoScale) {
  std::vector<std::byte> to(storage_bytes(GetParam(), kGroupNumel));
  std::vector<float> from(kGroupNumel);
  for (const float value :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    from[7] = value;
    EXPECT_THROW(quantize(from, GetParam(), to.data()), Error);
  }
  EXPECT_THROW(quantize(std::vector<float>(63), GetParam(), to.data()), Error);
  EXPECT_THROW(quantize(std::vector<float>(64), Dtype::kBf16, to.data()), Error);
}

TEST_P(GroupQuantization, ViewsAreCutBetweenGroups) {
  const std::size_t bytes = group_bytes(GetParam());
  std::vector<std::byte> memory(6 * bytes);
  const TensorView view(memory.data(), GetParam(), {3, 128});
  EXPECT_EQ(view.bytes(), 6 * bytes);
  EXPECT_EQ(view.rows(1, 2).data(), memory.data() + 2 * bytes);
  EXPECT_EQ(view.rows(1, 2).bytes(), 4 * bytes);
  EXPECT_EQ(view.flat(64, 64).data(), memory.data() + bytes);
  EXPECT_THROW(view.flat(32, 64), Error);
  EXPECT_THROW(view.flat(0, 32), Error);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, GroupQuantization, testing::Values(Dtype::kQ8, Dtype::kQ4),
                         [](const auto& parameter) { return std::string(name(parameter.param)); });

TEST(GroupQuantization, LosesLittleOfNormallyDistributedWeights) {
  const std::vector<float> from = floats(test::normal_values(kGroupNumel * 1000, 2));
  EXPECT_NEAR(loss(from, round_trip(from, Dtype::kQ8).values), 0.0055, 0.0010);
  EXPECT_NEAR(loss(from, round_trip(from, Dtype::kQ4).values), 0.090, 0.010);
}

TEST(GroupQuantization, StoresWhatItsHeaderSays) {
  std::vector<float> from(kGroupNumel);
  from[0] = 127.0f;
  from[1] = -127.0f;
  from[63] = 3.4f;
  const std::vector<std::byte> q8 = round_trip(from, Dtype::kQ8).stored;
  ASSERT_EQ(q8.size(), 66u);
  EXPECT_EQ(q8[1], std::byte{0x3f});  // 1.0 is 0x3f80
  EXPECT_EQ(q8[0], std::byte{0x80});
  EXPECT_EQ(q8[2], std::byte{127});
  EXPECT_EQ(q8[3], std::byte{0x81});
  EXPECT_EQ(q8[65], std::byte{3});

  from.assign(kGroupNumel, 0.0f);
  from[0] = 11.0f;
  from[32] = -4.0f;
  const std::vector<std::byte> q4 = round_trip(from, Dtype::kQ4).stored;
  ASSERT_EQ(q4.size(), 35u);
  EXPECT_EQ(q4[1], std::byte{0x3f});
  EXPECT_EQ(q4[2], std::byte{4});
  EXPECT_EQ(q4[3], std::byte{0x0f});  // 15 - 4 and 0 - 4
  EXPECT_EQ(q4[4], std::byte{0x44});
}

}  // namespace
}  // namespace strata
