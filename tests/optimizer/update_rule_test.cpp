// The contract of UpdateRule, on every rule.
#include "optimizer/update_rule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "optimizer/adamw.h"
#include "optimizer/lion.h"
#include "optimizer/sgd.h"
#include "tests/optimizer/sections.h"

namespace strata {
namespace {

using test::normal;
using test::Sections;

struct NamedRule {
  std::string name;
  std::shared_ptr<UpdateRule> rule;
};

class UpdateRuleContract : public testing::TestWithParam<NamedRule> {
 protected:
  static constexpr std::int64_t kNumel = 100003;  // enough for several threads
  const std::vector<UpdateSegment> segments_{
      {0, 1, true}, {1, 40000, false}, {40000, 40000, true}, {40007, 99990, true}};

  /// Sections in the middle of a run.
  static Sections sections(std::int64_t numel = kNumel) {
    Sections result(normal(numel, 3));
    result.m = normal(numel, 4, 0.01f);
    result.v = normal(numel, 5, 0.01f);
    for (float& square : result.v) square *= square;
    result.set_gradient(normal(numel, 6, 0.02f));
    return result;
  }

  void update(const UpdateChunk& chunk, std::span<const UpdateSegment> segments,
              int threads = 1) const {
    GetParam().rule->update(chunk, segments, {17, 1e-3f, 0.7f}, threads);
  }

  /// segments_ as seen by the chunk [begin, end).
  std::vector<UpdateSegment> segments_of(std::int64_t begin, std::int64_t end) const {
    std::vector<UpdateSegment> result;
    for (const UpdateSegment& segment : segments_) {
      const std::int64_t first = std::max(segment.begin, begin);
      const std::int64_t last = std::min(segment.end, end);
      if (first < last) result.push_back({first - begin, last - begin, segment.decay});
    }
    return result;
  }
};

TEST_P(UpdateRuleContract, AnyThreadCountGivesTheSameBits) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
    Sections want = sections();
    update(want.chunk(0, kNumel, dtype), segments_, 1);
    EXPECT_FALSE(want.same_state(sections()));
    for (const int threads : test::thread_counts()) {
      Sections got = sections();
      update(got.chunk(0, kNumel, dtype), segments_, threads);
      EXPECT_TRUE(got.same_state(want)) << threads << " threads";
    }
  }
}

TEST_P(UpdateRuleContract, AnyChunkingInAnyOrderGivesTheSameBits) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
    Sections want = sections();
    update(want.chunk(0, kNumel, dtype), segments_);
    for (const std::int64_t size : {std::int64_t{7}, std::int64_t{4096}, std::int64_t{33333}}) {
      Sections got = sections();
      for (std::int64_t end = kNumel; end > 0; end -= size) {  // the last chunk first
        const std::int64_t begin = std::max<std::int64_t>(end - size, 0);
        update(got.chunk(begin, end, dtype), segments_of(begin, end));
      }
      EXPECT_TRUE(got.same_state(want)) << "chunks of " << size;
    }
  }
}

TEST_P(UpdateRuleContract, AnyAlignmentAndLengthGivesTheSameBits) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
    for (std::int64_t numel = 0; numel <= 67; ++numel) {
      const std::vector<UpdateSegment> all{{0, numel, true}};
      Sections want = sections(80);
      for (std::int64_t i = 0; i < numel; ++i) {  // one element at a time: no vector loop
        const std::vector<UpdateSegment> one{{0, 1, true}};
        update(want.chunk(5 + i, 6 + i, dtype), one);
      }
      Sections got = sections(80);
      update(got.chunk(5, 5 + numel, dtype), all);
      ASSERT_TRUE(got.same_state(want)) << numel << " elements";
    }
  }
}

TEST_P(UpdateRuleContract, ElementsOutsideTheSegmentsAreLeftAlone) {
  Sections before = sections();
  before.gradient_fp32[40003] = std::nanf("");  // in a gap
  Sections after = before;
  update(after.chunk(0, kNumel, Dtype::kF32), segments_);
  for (std::int64_t i = 0; i < kNumel; ++i) {
    const bool gap = (i >= 40000 && i < 40007) || i >= 99990;
    const auto at = static_cast<std::size_t>(i);
    const bool same = before.hi[at] == after.hi[at] && before.lo[at] == after.lo[at] &&
                      before.m[at] == after.m[at] && before.v[at] == after.v[at];
    if (gap) {
      ASSERT_TRUE(same) << "element " << i;
    }
  }
  Sections untouched = before;
  update(untouched.chunk(0, kNumel, Dtype::kF32), {});
  EXPECT_TRUE(untouched.same_state(before));
}

TEST_P(UpdateRuleContract, AShortGradientActsAsTheFloatItStandsFor) {
  for (const Dtype dtype : {Dtype::kBf16, Dtype::kF16}) {
    Sections want = sections();
    for (std::size_t i = 0; i < want.gradient_fp32.size(); ++i) {
      want.gradient_fp32[i] = dtype == Dtype::kBf16 ? static_cast<float>(want.gradient_bf16[i])
                                                    : static_cast<float>(want.gradient_fp16[i]);
    }
    Sections got = want;
    update(want.chunk(0, kNumel, Dtype::kF32), segments_);
    update(got.chunk(0, kNumel, dtype), segments_);
    EXPECT_TRUE(got.same_state(want)) << name(dtype);
  }
}

TEST_P(UpdateRuleContract, TheScaleActsOnTheGradient) {
  Sections scaled = sections();
  Sections halved = scaled;
  for (float& gradient : halved.gradient_fp32) gradient *= 0.5f;
  const std::vector<UpdateSegment> all{{0, kNumel, true}};
  GetParam().rule->update(scaled.chunk(0, kNumel, Dtype::kF32), all, {2, 1e-3f, 0.5f}, 1);
  GetParam().rule->update(halved.chunk(0, kNumel, Dtype::kF32), all, {2, 1e-3f, 1.0f}, 1);
  EXPECT_TRUE(scaled.same_state(halved));
}

TEST_P(UpdateRuleContract, ABrokenPromiseIsAnErrorAndChangesNothing) {
  Sections sections_in_use = sections(100);
  const UpdateChunk chunk = sections_in_use.chunk(0, 100, Dtype::kF32);
  const auto refuses = [&](std::vector<UpdateSegment> segments, UpdateChunk broken, int threads) {
    EXPECT_THROW(update(broken, segments, threads), Error);
  };
  refuses({{0, 101, true}}, chunk, 1);
  refuses({{-1, 5, true}}, chunk, 1);
  refuses({{0, 50, true}, {49, 60, true}}, chunk, 1);
  refuses({{5, 4, true}}, chunk, 1);
  refuses({{0, 100, true}}, chunk, 0);
  UpdateChunk broken = chunk;
  broken.gradient_dtype = Dtype::kI16;
  refuses({{0, 100, true}}, broken, 1);
  broken = chunk;
  broken.gradient = nullptr;
  refuses({{0, 100, true}}, broken, 1);
  broken = chunk;
  broken.m = nullptr;
  refuses({{0, 100, true}}, broken, 1);
  const std::vector<UpdateSegment> all{{0, 100, true}};
  EXPECT_THROW(GetParam().rule->update(chunk, all, {0, 1e-3f, 1.0f}, 1), Error);
  EXPECT_TRUE(sections_in_use.same_state(sections(100)));
}

INSTANTIATE_TEST_SUITE_P(
    All, UpdateRuleContract,
    testing::Values(NamedRule{"AdamW", make_adamw({})},
                    NamedRule{"Adam", make_adam({.weight_decay = 0.1})},
                    NamedRule{"Lion", make_lion({.weight_decay = 0.1})},
                    NamedRule{"DecayEverywhere", decay_everywhere(make_adamw({}))},
                    NamedRule{"SgdWithMomentum", make_sgd({.momentum = 0.9, .weight_decay = 0.1})}),
    [](const auto& p) { return p.param.name; });

}  // namespace
}  // namespace strata
