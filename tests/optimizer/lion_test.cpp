#include "optimizer/lion.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "tests/optimizer/sections.h"

namespace strata {
namespace {

using test::normal;
using test::Sections;

/// Algorithm 2 of Chen et al. (arXiv 2302.06675), in double.
struct Textbook {
  double w, m = 0.0;

  void update(double g, double rate, const LionOptions& o) {
    const double c = o.beta1 * m + (1 - o.beta1) * g;
    const double sign = c > 0 ? 1 : c < 0 ? -1 : 0;
    w -= rate * (sign + o.weight_decay * w);
    m = o.beta2 * m + (1 - o.beta2) * g;
  }
};

TEST(Lion, FollowsItsPaperInDoubleForTenSteps) {
  constexpr std::int64_t kNumel = 1003;
  constexpr float kRate = 1e-2f;
  const LionOptions options{.beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0.1};
  const auto rule = make_lion(options);
  const std::vector<float> initial = normal(kNumel, 1);
  Sections sections(initial);
  std::vector<Textbook> textbook;
  for (const float weight : initial) textbook.push_back({weight});
  const std::vector<UpdateSegment> all{{0, kNumel, true}};
  for (int t = 1; t <= 10; ++t) {
    std::vector<float> gradient = normal(kNumel, 100u + static_cast<unsigned>(t), 0.3f);
    gradient[0] = 0.0f;  // a direction without sign
    sections.set_gradient(gradient);
    rule->update(sections.chunk(0, kNumel, Dtype::kF32), all, {t, kRate, 1.0f}, 1);
    for (std::size_t i = 0; i < kNumel; ++i) textbook[i].update(gradient[i], kRate, options);
    const std::vector<float> weights = sections.weights();
    for (std::size_t i = 0; i < kNumel; ++i) {
      ASSERT_NEAR(weights[i], textbook[i].w, 1e-5 * std::max(1.0, std::abs(textbook[i].w)))
          << "step " << t << " element " << i;
      ASSERT_NEAR(sections.m[i], textbook[i].m, 1e-6) << "step " << t << " element " << i;
      ASSERT_NE(weights[i], initial[i]);
    }
  }
}

TEST(Lion, DecaysOnlySegmentsThatAskForItAndNeedsNoV) {
  EXPECT_TRUE(make_lion({})->state_sections().m);
  EXPECT_FALSE(make_lion({})->state_sections().v);
  Sections sections(std::vector<float>(4, 2.0f));
  sections.set_gradient(std::vector<float>{1.0f, -1.0f, 3.0f, 0.0f});
  UpdateChunk chunk = sections.chunk(0, 4, Dtype::kBf16);
  chunk.v = nullptr;
  const std::vector<UpdateSegment> segments{{0, 2, true}, {2, 4, false}};
  make_lion({.beta1 = 0.5, .beta2 = 0.75, .weight_decay = 0.5})
      ->update(chunk, segments, {1, 0.5f, 1.0f}, 1);
  EXPECT_EQ(sections.weights(), (std::vector<float>{1.0f, 2.0f, 1.5f, 2.0f}));
  EXPECT_EQ(sections.m, (std::vector<float>{0.25f, -0.25f, 0.75f, 0.0f}));
}

TEST(Lion, RefusesOptionsOutOfRange) {
  EXPECT_THROW(make_lion({.beta1 = 1.0}), UsageError);
  EXPECT_THROW(make_lion({.beta2 = -0.5}), UsageError);
  EXPECT_THROW(make_lion({.weight_decay = std::nan("")}), UsageError);
}

}  // namespace
}  // namespace strata
