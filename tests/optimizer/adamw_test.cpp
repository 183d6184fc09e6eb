#include "optimizer/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "optimizer/sgd.h"
#include "tests/optimizer/sections.h"

namespace strata {
namespace {

using test::normal;
using test::Sections;

/// AdamW as in the paper, in double.
struct Textbook {
  double w, m = 0.0, v = 0.0;

  void update(double g, double rate, int t, const AdamWOptions& o) {
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    const double mean = m / (1 - std::pow(o.beta1, t));
    const double square = v / (1 - std::pow(o.beta2, t));
    w = w - rate * o.weight_decay * w - rate * mean / (std::sqrt(square) + o.epsilon);
  }
};

/// A step changes a weight by about the learning rate, with a relative error of a few units in the
/// last place (8 roundings of 2^-24 each), and rounds the weight twice: so after T steps the error
/// is at most T * (2 |w| + 8 rate) * 2^-24, with |w| the largest the weight has been. Moments that
/// cancel lose relative precision; their terms are small then, and the same bound holds.
TEST(AdamW, FollowsATextbookInDoubleForTwoHundredSteps) {
  constexpr std::int64_t kNumel = 1003;
  constexpr int kSteps = 200;
  constexpr float kRate = 1e-2f;
  const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1};
  const auto rule = make_adamw(options);
  const std::vector<float> initial = normal(kNumel, 1);
  Sections sections(initial);
  std::vector<Textbook> textbook;
  std::vector<double> largest(kNumel, 0.0);
  for (const float weight : initial) textbook.push_back({weight});
  const std::vector<UpdateSegment> all{{0, kNumel, true}};
  for (int t = 1; t <= kSteps; ++t) {
    const std::vector<float> gradient = normal(kNumel, 100u + static_cast<unsigned>(t), 0.3f);
    sections.set_gradient(gradient);
    rule->update(sections.chunk(0, kNumel, Dtype::kF32), all, {t, kRate, 1.0f}, 1);
    for (std::size_t i = 0; i < kNumel; ++i) {
      largest[i] = std::max(largest[i], std::abs(textbook[i].w));
      textbook[i].update(gradient[i], kRate, t, options);
    }
  }
  const std::vector<float> weights = sections.weights();
  for (std::size_t i = 0; i < kNumel; ++i) {
    const double tolerance = kSteps * (2 * largest[i] + 8 * kRate) * 0x1p-24;
    ASSERT_NEAR(weights[i], textbook[i].w, tolerance) << "element " << i;
    ASSERT_NE(weights[i], initial[i]);
  }
}

std::unique_ptr<UpdateRule> make_rule(const nlohmann::json& item) {
  const nlohmann::json& options = item.at("options");
  if (item.at("rule") == "sgd") {
    return make_sgd(
        {.momentum = options.at("momentum"), .weight_decay = options.at("weight_decay")});
  }
  const AdamWOptions adam{.beta1 = options.at("beta1"),
                          .beta2 = options.at("beta2"),
                          .epsilon = options.at("epsilon"),
                          .weight_decay = options.at("weight_decay")};
  return item.at("rule") == "adam" ? make_adam(adam) : make_adamw(adam);
}

TEST(UpdateRules, GiveTheWeightsOfTorchToOneInAMillion) {
  const nlohmann::json fixture = test::read_fixture();
  ASSERT_EQ(fixture.at("updates").size(), 7u);
  for (const nlohmann::json& item : fixture.at("updates")) {
    const auto rule = make_rule(item);
    Sections sections(item.at("initial").get<std::vector<float>>());
    const std::vector<UpdateSegment> all{{0, sections.numel(), true}};
    UpdateStep step{0, 0.0f, 1.0f};
    for (const nlohmann::json& want : item.at("steps")) {
      step.step += 1;
      step.learning_rate = want.at("learning_rate");
      sections.set_gradient(want.at("gradient").get<std::vector<float>>());
      rule->update(sections.chunk(0, sections.numel(), Dtype::kF32), all, step, 1);
      const auto torch = want.at("weight").get<std::vector<float>>();
      const std::vector<float> weights = sections.weights();
      for (std::size_t i = 0; i < torch.size(); ++i) {
        ASSERT_NEAR(weights[i], torch[i], 1e-6 * std::abs(torch[i]))
            << item.at("rule") << " step " << step.step << " element " << i;
      }
    }
    EXPECT_EQ(step.step, 10);
  }
}

TEST(AdamW, DecaysOnlySegmentsThatAskForIt) {
  const std::vector<float> weights(8, 2.0f);
  Sections sections(weights);  // zero gradients: only decay moves a weight
  const std::vector<UpdateSegment> segments{{0, 4, true}, {4, 8, false}};
  make_adamw({.weight_decay = 0.5})
      ->update(sections.chunk(0, 8, Dtype::kF32), segments, {1, 0.5f, 1.0f}, 1);
  EXPECT_EQ(sections.weights(),
            (std::vector<float>{1.5f, 1.5f, 1.5f, 1.5f, 2.0f, 2.0f, 2.0f, 2.0f}));
}

TEST(Adam, AddsDecayToTheGradientOnlyOfSegmentsThatAskForIt) {
  const std::vector<float> weights(4, 2.0f);
  Sections sections(weights);  // zero gradients: a step of the learning rate where decay acts
  const std::vector<UpdateSegment> segments{{0, 2, true}, {2, 4, false}};
  make_adam({.epsilon = 0x1p-60, .weight_decay = 0.5})
      ->update(sections.chunk(0, 4, Dtype::kF32), segments, {1, 0.25f, 1.0f}, 1);
  const std::vector<float> after = sections.weights();
  EXPECT_NEAR(after[0], 1.75f, 1e-6);
  EXPECT_NEAR(after[1], 1.75f, 1e-6);
  EXPECT_EQ(after[2], 2.0f);
  EXPECT_EQ(after[3], 2.0f);
}

TEST(UpdateRules, DecayEverywhereWhenToldTo) {
  const std::vector<float> weights(4, 2.0f);
  Sections sections(weights);
  const std::vector<UpdateSegment> segments{{0, 1, true}, {1, 3, false}};
  const auto rule = decay_everywhere(make_adamw({.weight_decay = 0.5}));
  EXPECT_TRUE(rule->state_sections().v);
  rule->update(sections.chunk(0, 4, Dtype::kF32), segments, {1, 0.5f, 1.0f}, 1);
  EXPECT_EQ(sections.weights(), (std::vector<float>{1.5f, 1.5f, 1.5f, 2.0f}));
}

TEST(Sgd, AddsDecayToTheGradientOnlyOfSegmentsThatAskForIt) {
  const std::vector<float> weights(4, 2.0f);
  Sections sections(weights);
  const std::vector<UpdateSegment> segments{{0, 2, true}, {2, 4, false}};
  make_sgd({.weight_decay = 0.5})
      ->update(sections.chunk(0, 4, Dtype::kF32), segments, {1, 0.25f, 1.0f}, 1);
  EXPECT_EQ(sections.weights(), (std::vector<float>{1.75f, 1.75f, 2.0f, 2.0f}));
}

TEST(Sgd, DoesNotReadTheMomentumOfAnotherRunAtItsFirstStep) {
  Sections sections(std::vector<float>(40, 1.0f));
  sections.set_gradient(std::vector<float>(40, 0.5f));
  sections.m.assign(40, std::nanf(""));
  const auto rule = make_sgd({.momentum = 0.5});
  const std::vector<UpdateSegment> all{{0, 40, true}};
  rule->update(sections.chunk(0, 40, Dtype::kF32), all, {1, 1.0f, 1.0f}, 1);
  EXPECT_EQ(sections.m, std::vector<float>(40, 0.5f));
  rule->update(sections.chunk(0, 40, Dtype::kF32), all, {2, 1.0f, 1.0f}, 1);
  EXPECT_EQ(sections.m, std::vector<float>(40, 0.75f));
  EXPECT_EQ(sections.weights(), std::vector<float>(40, -0.25f));
}

TEST(Sgd, NeedsNoSectionItDoesNotUse) {
  EXPECT_FALSE(make_sgd({})->state_sections().m);
  EXPECT_FALSE(make_sgd({.momentum = 0.9})->state_sections().v);
  Sections sections(std::vector<float>{1.0f, 2.0f});
  sections.set_gradient(std::vector<float>{1.0f, 1.0f});
  UpdateChunk chunk = sections.chunk(0, 2, Dtype::kBf16);
  chunk.v = nullptr;
  const std::vector<UpdateSegment> all{{0, 2, true}};
  make_sgd({.momentum = 0.9})->update(chunk, all, {1, 0.5f, 1.0f}, 1);
  chunk.m = nullptr;
  make_sgd({})->update(chunk, all, {2, 0.5f, 1.0f}, 1);
  EXPECT_EQ(sections.weights(), (std::vector<float>{0.0f, 1.0f}));
}

TEST(UpdateRules, RefuseOptionsOutOfRangeByName) {
  try {
    make_adamw({.beta2 = 1.0});
    FAIL() << "beta2 = 1 was accepted";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("beta2 is 1"), std::string::npos) << error.what();
  }
  EXPECT_THROW(make_adamw({.beta1 = -0.1}), UsageError);
  EXPECT_THROW(make_adamw({.epsilon = std::nan("")}), UsageError);
  EXPECT_THROW(make_adamw({.weight_decay = -1.0}), UsageError);
  EXPECT_THROW(make_adam({.beta1 = 1.0}), UsageError);
  EXPECT_THROW(make_sgd({.momentum = -0.5}), UsageError);
  EXPECT_THROW(make_sgd({.weight_decay = INFINITY}), UsageError);
}

}  // namespace
}  // namespace strata
