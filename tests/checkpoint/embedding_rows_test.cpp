// Generation that reads only those rows of a large token table that it looks up.
#include <gtest/gtest.h>

#include "checkpoint/pretrained.h"
#include "checkpoint/quantized_weights.h"
#include "core/model/transformer.h"
#include "parallel/stored_range.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/text_runs.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using test::expect_same;
using test::generate;
using test::greedy;
using test::Outcome;

constexpr std::int64_t kVocabulary = 50'000;

/// A model whose table is most of it.
class LargeTable : public testing::TestWithParam<const char*> {
 protected:
  LargeTable() {
    const std::string which = GetParam();
    ModelConfig config =
        which == "llama" ? test::tiny_llama() : test::tiny_gpt2(which == "gpt2_tied");
    config.vocab_size = kVocabulary;
    const Model model = make_transformer(config);
    PretrainedWriter writer(directory_ / "model", config, {.dtype = Dtype::kBf16});
    const ParameterSource values = random_parameters(5);
    for (int block = 0; block < model.block_count(); ++block) {
      for (const auto& parameter : model.block(block).parameters()) {
        std::vector<float> all(static_cast<std::size_t>(parameter->shape.numel()));
        values(parameter.get(), 0, all);
        for (float& value : all) value *= 10;  // tokens that differ
        writer.write(parameter->name, std::span<const float>(all));
      }
    }
    writer.finish();
    // The ends of the table, one row twice in a pass, and others.
    requests_ = {greedy({0, kVocabulary - 1, 7, 7, 12'345}, 12), greedy({31'999, 7, 2}, 9),
                 greedy({kVocabulary - 1}, 5)};
  }

  PretrainedModel load() const {
    PretrainedModel model = load_pretrained(directory_ / "model");
    model.freeze_all();
    return model;
  }
  GeneratorOptions streaming() const {
    GeneratorOptions options = test::tiny_generator();
    options.residency = false;
    options.swap = {{.path = directory_ / "swap"}};
    return options;
  }

  test::TemporaryDirectory directory_;
  std::vector<GenerationRequest> requests_;
};

TEST_P(LargeTable, IsLookedUpWhereItDoesNotStay) {
  const PretrainedModel model = load();
  const Outcome want = generate(model, test::tiny_generator(), requests_);
  EXPECT_FALSE(want.plan.looks_up) << "with everything in memory nothing is read";
  std::filesystem::create_directory(directory_ / "swap");
  for (const int ranks : {1, 2}) {
    SCOPED_TRACE(ranks);
    const Outcome got = generate(model, streaming(), requests_, {.ranks = ranks});
    EXPECT_TRUE(got.plan.looks_up);
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      EXPECT_EQ(got.results[i].ids, want.results[i].ids);
    }
    if (ranks == 1) expect_same(got.results, want.results);
  }
}

TEST_P(LargeTable, IsReadOnceAPassAtMost) {
  std::filesystem::create_directory(directory_ / "swap");
  const Outcome run = generate(load(), streaming(), requests_);
  const auto table = static_cast<std::uint64_t>(kVocabulary) * 64 * 2;  // bf16
  // For the logits only; the rest is little beside it.
  EXPECT_GT(run.plan.streamed, table);
  EXPECT_LT(run.plan.streamed, table + table / 4);
  // Prompts' rows and blocks around them, and the ends of files.
  const auto passes = static_cast<std::uint64_t>(run.progress.passes);
  EXPECT_LT(run.bytes_read, passes * (run.plan.streamed + (1 << 18)) + (1 << 22));
}

TEST_P(LargeTable, IsLookedUpInGroups) {
  const PretrainedModel model = load();
  std::filesystem::create_directory(directory_ / "swap");
  for (const Dtype weights : {Dtype::kQ8, Dtype::kQ4}) {
    const WeightStorage storage{Dtype::kF32, weights};
    const ParameterLocator locator = quantized_weights(model, storage, directory_ / "cache");
    GeneratorOptions options = test::tiny_generator();
    options.weights = weights;
    const Outcome want = generate(model, options, requests_);
    options = streaming();
    options.weights = weights;
    const Outcome got = generate(model, options, requests_, {.locator = &locator});
    EXPECT_TRUE(got.plan.looks_up);
    expect_same(got.results, want.results);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, LargeTable, testing::Values("llama", "gpt2", "gpt2_tied"),
                         [](const auto& model) { return std::string(model.param); });

TEST(StoredRange, TakesGroupsOnlyAsTheyAre) {
  EXPECT_TRUE(is_kept_as(Dtype::kBf16, Dtype::kF32));
  EXPECT_TRUE(is_kept_as(Dtype::kQ8, Dtype::kQ8));
  EXPECT_FALSE(is_kept_as(Dtype::kQ8, Dtype::kBf16));
  EXPECT_FALSE(is_kept_as(Dtype::kBf16, Dtype::kQ8));
  EXPECT_FALSE(is_kept_as(Dtype::kQ4, Dtype::kQ8));
}

}  // namespace
}  // namespace strata
