#include "core/model/initial_values.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/error.h"

namespace strata {
namespace {

ParameterSpec table(Initializer initializer) {
  ParameterSpec parameter;
  parameter.name = "embedding.tokens.weight";
  parameter.shape = Shape{257, 301};
  parameter.initializer = initializer;
  return parameter;
}

std::vector<float> values_of(const ParameterSpec& parameter, std::uint64_t seed) {
  std::vector<float> values(static_cast<std::size_t>(parameter.shape.numel()));
  initial_values(parameter, seed, 0, values);
  return values;
}

TEST(InitialValues, DoNotDependOnHowTheParameterIsCut) {
  const ParameterSpec parameter = table(Initializer::normal(0.02f));
  const std::vector<float> whole = values_of(parameter, 42);
  for (const std::int64_t ranks : {2, 3, 7}) {
    std::vector<float> parts;
    const std::int64_t shard = (parameter.shape.numel() + ranks - 1) / ranks;
    for (std::int64_t begin = 0; begin < parameter.shape.numel(); begin += shard) {
      const std::int64_t count = std::min(shard, parameter.shape.numel() - begin);
      std::vector<float> part(static_cast<std::size_t>(count));
      initial_values(parameter, 42, begin, part);
      parts.insert(parts.end(), part.begin(), part.end());
    }
    EXPECT_EQ(parts, whole) << ranks;
  }
}

TEST(InitialValues, HaveTheDeviationThatWasAskedFor) {
  const std::vector<float> values = values_of(table(Initializer::normal(0.02f)), 1);
  double square = 0;
  for (const float value : values)
    square += static_cast<double>(value) * static_cast<double>(value);
  const double n = static_cast<double>(values.size());
  EXPECT_NEAR(std::sqrt(square / n), 0.02, 0.02 * 5 / std::sqrt(2 * n));
}

TEST(InitialValues, DifferByNameAndSeedAndRepeatForTheSame) {
  ParameterSpec parameter = table(Initializer::normal(0.02f));
  const std::vector<float> values = values_of(parameter, 1);
  EXPECT_EQ(values_of(parameter, 1), values);
  EXPECT_NE(values_of(parameter, 2), values);
  parameter.name = "head.weight";
  EXPECT_NE(values_of(parameter, 1), values);
}

TEST(InitialValues, FillConstantsAndRefuseRangesOutside) {
  const ParameterSpec parameter = table(Initializer::constant(1.0f));
  for (const float value : values_of(parameter, 1)) ASSERT_EQ(value, 1.0f);
  std::vector<float> values(2);
  EXPECT_THROW(initial_values(parameter, 1, parameter.shape.numel() - 1, values), Error);
}

}  // namespace
}  // namespace strata
