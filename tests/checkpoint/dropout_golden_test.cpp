// Training with dropout against transformers with the same masks: make_dropout_fixture.py made the
// figures.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/support/golden_model.h"
#include "tests/support/plain_visit.h"

namespace strata {
namespace {

struct Case {
  const char* name;
  DropoutRates rates;
};

std::filesystem::path expectations(const std::string& name) {
  return test::golden_directory("dropout") / (name + ".safetensors");
}

/// As in golden_test.cpp: a bias of the keys adds the same to all scores of a query.
bool is_rounding(const std::string& gradient, const ModelConfig& config) {
  return config.positions == PositionKind::kLearned && gradient.ends_with("k_proj.bias");
}

class DropoutGolden : public testing::TestWithParam<Case> {};

TEST_P(DropoutGolden, HasTheLossAndGradientsOfTransformersWithTheSameMasks) {
  const test::GoldenModel golden(GetParam().name);
  const ModelConfig& config = golden.model().config();
  const Model model = make_transformer(config, GetParam().rates);
  test::PlainModel plain(model, Dtype::kF32, golden.model().source());
  plain.draw(7, 3);
  Batch batch = golden.batch();
  batch.first_sequence = 5;
  const auto counted = static_cast<double>(batch.counted_labels());
  const std::vector<float> losses = plain.run(batch, static_cast<float>(1.0 / counted));
  const double loss = std::accumulate(losses.begin(), losses.end(), 0.0) / counted;

  const SafetensorsReader reader(expectations(GetParam().name));
  float expected = 0.0f;
  reader.read(reader.at("loss"), 0, 1, &expected);
  EXPECT_NEAR(loss, static_cast<double>(expected), 1e-6 * loss);
  EXPECT_GT(std::abs(loss - static_cast<double>(golden.expected("loss").front())), 1e-3 * loss);
  const std::vector<MappedParameter> names =
      PretrainedReader(test::golden_directory(GetParam().name)).parameters();
  test::Gradients got;
  for (const MappedParameter& mapped : names) {
    const auto gradient = plain.parameters().full_gradient(model.find(mapped.name));
    got[mapped.name].assign(gradient.begin(), gradient.end());
  }
  for (const auto& [name, difference] :
       test::compare_gradients(expectations(GetParam().name), names, got)) {
    if (is_rounding(name, config)) {
      EXPECT_LE(difference.difference_norm, 1e-7) << name;
    } else {
      EXPECT_LE(difference.relative(), 1e-4) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, DropoutGolden,
    testing::Values(Case{"gpt2_tied", {.embedding = 0.1f, .residual = 0.2f, .attention = 0.15f}},
                    Case{"opt_tied", {.residual = 0.2f, .attention = 0.15f}},
                    Case{"llama_tied", {.attention = 0.15f}}),
    [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace strata
