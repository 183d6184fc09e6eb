// Strata against transformers and torch: tests/golden/make_model_fixtures.py made the figures.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "tests/support/golden_model.h"
#include "tests/support/plain_visit.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using test::Difference;
using test::GoldenModel;
using test::Gradients;
using test::PlainModel;

/// Everything a fixture tells about one batch.
struct Comparison {
  Difference logits;
  double loss = 0;  ///< relative
  std::map<std::string, Difference> gradients;

  double worst_gradient() const {
    double worst = 0;
    for (const auto& [name, difference] : gradients) {
      worst = std::max(worst, difference.relative());
    }
    return worst;
  }
};

/// What transformers calls the parameters, changed by a test that wants to be noticed.
using Mutation = std::function<void(std::vector<MappedParameter>&)>;

std::vector<MappedParameter> names_of(const std::string& name, const Mutation& mutate) {
  std::vector<MappedParameter> names = PretrainedReader(test::golden_directory(name)).parameters();
  if (mutate) mutate(names);
  return names;
}

Comparison compare(const std::string& name, Dtype compute, const Mutation& values = {},
                   const Mutation& gradients = {}) {
  const GoldenModel golden(name);
  const SafetensorsReader weights(test::golden_directory(name));
  std::map<std::string, MappedParameter> mapped;
  for (const MappedParameter& parameter : names_of(name, values))
    mapped[parameter.name] = parameter;
  PlainModel plain(golden.model().model(), compute,
                   [&](Parameter parameter, std::int64_t begin, std::span<float> out) {
                     const MappedParameter& from = mapped.at(parameter->name);
                     read_parameter_range(weights, from.source, from.shape, begin,
                                          static_cast<std::int64_t>(out.size()), out.data());
                   });
  const Batch batch = golden.batch();
  const auto counted = static_cast<double>(batch.counted_labels());
  const std::vector<float> losses = plain.run(batch, static_cast<float>(1.0 / counted));

  Comparison result;
  result.logits.add(plain.logits(0), golden.expected("logits"));
  const double loss = std::accumulate(losses.begin(), losses.end(), 0.0) / counted;
  const double expected = golden.expected("loss").front();
  result.loss = std::abs(loss - expected) / expected;
  Gradients got;
  for (const auto& [own_name, parameter] : mapped) {
    const auto gradient = plain.parameters().full_gradient(golden.model().model().find(own_name));
    got[own_name].assign(gradient.begin(), gradient.end());
  }
  result.gradients = test::compare_gradients(
      test::golden_directory(name) / "expectations.safetensors", names_of(name, gradients), got);
  return result;
}

/// Without rotation a bias of the keys adds the same to all scores of a query, which softmax takes
/// out again: what any program computes as its gradient is rounding.
bool is_rounding(const std::string& gradient, const ModelConfig& config) {
  return config.positions == PositionKind::kLearned && gradient.ends_with("k_proj.bias");
}

class GoldenBatch : public testing::TestWithParam<std::string> {};

TEST_P(GoldenBatch, HasTheLogitsLossAndGradientsOfTransformersInFp32) {
  const Comparison got = compare(GetParam(), Dtype::kF32);
  EXPECT_LE(got.logits.largest, 1e-5);
  EXPECT_LE(got.loss, 1e-6);
  EXPECT_GT(got.gradients.size(), 15u);
  const ModelConfig config = GoldenModel(GetParam()).model().config();
  for (const auto& [name, difference] : got.gradients) {
    if (is_rounding(name, config)) {
      EXPECT_LE(difference.expected_norm, 1e-7) << name;
      EXPECT_LE(difference.difference_norm, 1e-7) << name;
      continue;
    }
    EXPECT_LE(difference.relative(), 1e-4) << name;
    EXPECT_GT(difference.expected_norm, 1e-6) << name;
  }
  RecordProperty("logits", std::to_string(got.logits.largest * 1e6) + "e-6");
  RecordProperty("gradient", std::to_string(got.worst_gradient() * 1e6) + "e-6");
}

TEST_P(GoldenBatch, IsNearInBf16) {
  const Comparison got = compare(GetParam(), Dtype::kBf16);
  const double loss = GoldenModel(GetParam()).expected("loss").front();
  EXPECT_LE(got.loss * loss, 2e-2);
  const ModelConfig config = GoldenModel(GetParam()).model().config();
  // Rounding moves values across the kink of a ReLU: torch's own bf16 has cosines down to 0.9936.
  const double least = config.activation == Activation::kRelu ? 0.99 : 0.999;
  for (const auto& [name, difference] : got.gradients) {
    if (is_rounding(name, config)) continue;
    EXPECT_GE(difference.cosine(), least) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenBatch, testing::ValuesIn(test::golden_models()),
                         [](const auto& p) { return p.param; });

MappedParameter& named(std::vector<MappedParameter>& names, const std::string& name) {
  return *std::find_if(names.begin(), names.end(),
                       [&](const MappedParameter& mapped) { return mapped.name == name; });
}

Mutation swapped(const std::string& a, const std::string& b) {
  return [=](std::vector<MappedParameter>& names) {
    std::swap(named(names, a).source, named(names, b).source);
  };
}

Mutation transposed(const std::string& name) {
  return [=](std::vector<MappedParameter>& names) {
    TensorSource& source = named(names, name).source;
    source.layout = source.layout == TensorSource::Layout::kRows ? TensorSource::Layout::kColumns
                                                                 : TensorSource::Layout::kRows;
  };
}

/// Shapes do not tell these apart; only numbers do.
TEST(GoldenMutation, NoticesWeightsThatLieElsewhere) {
  const std::map<std::string, std::vector<Mutation>> mutations{
      {"gpt2_tied",
       {transposed("layers.0.attention.o.weight"), transposed("layers.1.attention.o.weight"),
        swapped("layers.0.attention.q.weight", "layers.0.attention.k.weight"),
        swapped("layers.1.attention.k.weight", "layers.1.attention.v.weight"),
        swapped("layers.1.attention.q.bias", "layers.1.attention.v.bias"),
        swapped("layers.0.attention_norm.weight", "layers.0.mlp_norm.weight"),
        swapped("layers.1.mlp_norm.bias", "head.norm.bias"),
        swapped("layers.0.mlp.up.weight", "layers.1.mlp.up.weight")}},
      {"llama_untied",
       {transposed("layers.0.attention.q.weight"), transposed("layers.1.attention.o.weight"),
        swapped("layers.0.attention.k.weight", "layers.0.attention.v.weight"),
        swapped("layers.0.attention.q.weight", "layers.0.attention.o.weight"),
        swapped("layers.1.mlp.gate.weight", "layers.1.mlp.up.weight"),
        swapped("layers.1.attention_norm.weight", "head.norm.weight"),
        swapped("embedding.tokens.weight", "head.weight")}},
  };
  for (const auto& [name, all] : mutations) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      const Comparison got = compare(name, Dtype::kF32, all[i]);
      EXPECT_GT(got.logits.largest, 1e-3) << name << ", mutation " << i;
      EXPECT_GT(got.worst_gradient(), 1e-2) << name << ", mutation " << i;
    }
  }
}

TEST(GoldenMutation, NoticesGradientsOfAnotherTensor) {
  const Mutation no_change;
  for (const auto& [name, mutation] :
       {std::pair{"gpt2_tied", transposed("layers.0.attention.o.weight")},
        {"gpt2_untied", swapped("layers.0.attention.q.bias", "layers.0.attention.v.bias")},
        {"llama_tied", swapped("layers.0.mlp.gate.weight", "layers.0.mlp.up.weight")}}) {
    const Comparison got = compare(name, Dtype::kF32, no_change, mutation);
    EXPECT_LE(got.logits.largest, 1e-5) << name;
    EXPECT_GT(got.worst_gradient(), 1e-2) << name;
  }
}

/// Position 3 as position 4: rotary angles and learned positions are in the figures.
TEST(GoldenMutation, NoticesAWrongPosition) {
  for (const std::string& name : test::golden_models()) {
    const GoldenModel golden(name);
    PlainModel plain(golden.model().model(), Dtype::kF32, golden.model().source());
    Batch batch = golden.batch();
    batch.micro_batches[0].positions[3] = 4;
    plain.run(batch, 1.0f, false);
    Difference logits;
    logits.add(plain.logits(0), golden.expected("logits"));
    EXPECT_GT(logits.largest, 1e-4) << name;
  }
}

}  // namespace
}  // namespace strata
