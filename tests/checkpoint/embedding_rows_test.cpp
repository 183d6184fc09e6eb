// Generation that reads only those rows of a large token table that it looks up.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>

#include "checkpoint/pretrained.h"
#include "checkpoint/quantized_weights.h"
#include "core/model/transformer.h"
#include "parallel/partition.h"
#include "parallel/stored_range.h"
#include "tests/support/decorated_engine.h"
#include "tests/support/faulty_io_engine.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/text_runs.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using test::expect_same;
using test::generate;
using test::greedy;
using test::Outcome;

constexpr std::int64_t kVocabulary = 50'016;  // a multiple of 32: products may interleave the rows

/// A model whose table is most of it.
class LargeTable : public testing::TestWithParam<const char*> {
 protected:
  LargeTable() {
    const std::string which = GetParam();
    ModelConfig config =
        which.starts_with("llama") ? test::tiny_llama() : test::tiny_gpt2(which == "gpt2_tied");
    if (which == "llama_tied") config.tied = true;
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

TEST_P(LargeTable, GivesTheSameBitsWhereProductsArrangeWeights) {
  const PretrainedModel model = load();
  std::filesystem::create_directory(directory_ / "swap");
  for (const Dtype weights : {Dtype::kQ8, Dtype::kQ4}) {
    const WeightStorage storage{Dtype::kBf16, weights};
    const ParameterLocator locator = quantized_weights(model, storage, directory_ / "cache");
    const auto run = [&](GeneratorOptions options, int ranks) {
      options.compute = Dtype::kBf16;
      options.weights = weights;
      return generate(model, options, requests_,
                      {.ranks = ranks, .locator = &locator, .batch_invariant = true});
    };
    const Outcome want = run(streaming(), 1);
    for (const int ranks : {1, 2}) {
      SCOPED_TRACE(fmt::format("{}, {} ranks", name(weights), ranks));
      const Outcome resident = run(test::tiny_generator(), ranks);
      EXPECT_EQ(resident.plan.streamed, 0u);
      expect_same(resident.results, want.results);
    }
    // A head with a table of its own stays, and rows of the first block's are looked up elsewhere.
    if (std::string(GetParam()).ends_with("_tied")) continue;
    GeneratorOptions options = streaming();
    options.residency = true;
    options.kv_bytes = want.plan.kv;
    options.dram_bytes = run(test::tiny_generator(), 1).plan.dram() - 1;
    const Outcome partly = run(options, 1);
    EXPECT_GT(partly.plan.resident, 0u);
    EXPECT_GT(partly.plan.streamed, 0u);
    EXPECT_TRUE(partly.plan.looks_up);
    expect_same(partly.results, want.results);
  }
}

/// Values of which no file is known: what streams is copied to swap.
class CopiedTable : public LargeTable {
 protected:
  CopiedTable() {
    for (const char* name : {"swap", "swap2"}) std::filesystem::create_directory(directory_ / name);
  }
  bool tied() const { return std::string(GetParam()).ends_with("_tied"); }
  GeneratorOptions streaming() const {
    GeneratorOptions options = LargeTable::streaming();
    options.swap.push_back({.path = directory_ / "swap2", .weight = 2});
    return options;
  }
  Outcome run(const GeneratorOptions& options, int ranks = 1) const {
    const ParameterSource values = model_.source();
    return generate(model_, options, requests_, {.ranks = ranks, .values = &values});
  }
  /// Of a rank, in bytes.
  std::uint64_t shards(const GeneratorOptions& options, int ranks, int from, int to) const {
    const Partition partition(model_.model(), ranks, WeightStorage{Dtype::kF32, options.weights});
    std::uint64_t numel = 0;
    for (int block = from; block < to; ++block) {
      const int part = partition.block_count() + block;
      numel += static_cast<std::uint64_t>(partition.part(part).shard_numel());
    }
    return numel * sizeof(float);
  }

  PretrainedModel model_ = load();
};

TEST_P(CopiedTable, IsLookedUpInTheCopy) {
  for (const Dtype weights : {Dtype::kF32, Dtype::kQ8}) {
    for (const int ranks : {1, 2, 3}) {
      if (weights == Dtype::kQ8 && ranks == 3) continue;
      SCOPED_TRACE(fmt::format("{}, {} ranks", name(weights), ranks));
      GeneratorOptions options = test::tiny_generator();
      options.weights = weights;
      const Outcome want = run(options, ranks);
      EXPECT_FALSE(want.plan.looks_up) << "with everything in memory nothing is read";
      EXPECT_EQ(want.plan.swap, 0u);
      options = streaming();
      options.weights = weights;
      const Outcome got = run(options, ranks);
      EXPECT_TRUE(got.plan.looks_up);
      EXPECT_TRUE(got.plan.copies_table);
      expect_same(got.results, want.results);
      // Every rank has the table whole, and of all else its shard.
      const int blocks = model_.model().block_count();
      const std::uint64_t table = shards(options, ranks, 0, 1);
      const std::uint64_t others = shards(options, ranks, 1, blocks);
      EXPECT_EQ(got.plan.swap, table * static_cast<std::uint64_t>(ranks) + others);
      EXPECT_EQ(got.plan.streamed, others + (tied() ? table : 0));
    }
  }
}

TEST_P(CopiedTable, IsReadOnceAPassAtMost) {
  const Outcome streams = run(streaming());
  const auto passes = static_cast<std::uint64_t>(streams.progress.passes);
  EXPECT_GE(streams.bytes_read, passes * streams.plan.streamed);
  // A row is in one block or two; the last pass reads ahead, and positions are read once.
  const std::uint64_t rows = 5 + 12 + 3 + 9 + 1 + 5;
  EXPECT_LE(streams.bytes_read,
            (passes + 1) * streams.plan.streamed + rows * 2 * kIoAlignment + (1 << 16));
}

TEST_P(CopiedTable, IsLookedUpWhereOtherWeightsStay) {
  // On one rank, where there is room for these complete tables there is room for everything.
  const int ranks = tied() ? 2 : 1;
  const Outcome want = run(test::tiny_generator(), ranks);
  GeneratorOptions options = streaming();
  options.kv_bytes = want.plan.kv;
  const std::uint64_t others = shards(options, ranks, 1, model_.model().block_count());
  const std::uint64_t least = run(options, ranks).plan.dram();
  options.residency = true;
  options.dram_bytes = least + others / 2;
  const Outcome got = run(options, ranks);
  EXPECT_TRUE(got.plan.copies_table);
  EXPECT_GT(got.plan.resident, 0u);
  EXPECT_GT(got.plan.streamed, 0u);
  expect_same(got.results, want.results);
  options.dram_bytes = want.plan.dram();
  EXPECT_FALSE(run(options, ranks).plan.looks_up) << "everything stays";
}

class TiedCopiedTable : public CopiedTable {};

TEST_P(TiedCopiedTable, StaysInShardsWhereThereIsNoRoomToGatherItTwice) {
  GeneratorOptions options = test::tiny_generator();
  options.keep_gathered = false;
  const Outcome want = run(options, 2);
  options = streaming();
  options.keep_gathered = false;
  options.residency = true;
  options.kv_bytes = want.plan.kv;
  options.dram_bytes = want.plan.dram() - 1;
  const Outcome got = run(options, 2);
  EXPECT_TRUE(got.plan.copies_table);
  EXPECT_EQ(got.plan.streamed, 0u) << "without a second complete table there is room for all";
  const std::uint64_t whole = 2 * shards(options, 2, 0, 1);
  EXPECT_EQ(got.plan.swap, whole);
  EXPECT_LT(got.bytes_read, whole) << "its shard is read once";
  expect_same(got.results, want.results);
}

TEST_P(CopiedTable, EndsWithTheCauseOfAFailedRead) {
  requests_ = {greedy({0, kVocabulary - 1, 7}, 2), greedy({31'999, 7, 2}, 2)};
  const GeneratorOptions options = streaming();
  // Every third request: of writes, of rows and of what streams.
  int failures = 0;
  for (int request = 0; request < 300; request += 3) {
    SCOPED_TRACE(request);
    GeneratorOptions faulty = options;
    faulty.make_engine = test::decorate<test::FaultyIoEngine>(
        test::FaultyIoEngine::Fault{.request = request, .system_error = EIO});
    try {
      run(faulty, 2);
      break;
    } catch (const IoError& error) {
      EXPECT_NE(std::string(error.what()).find("an injected fault"), std::string::npos);
      ++failures;
    }
  }
  EXPECT_GT(failures, 5);
  EXPECT_LT(failures, 100);
}

TEST_P(CopiedTable, NeedsADirectory) {
  GeneratorOptions options = streaming();
  options.swap.clear();
  test::expect_message<UsageError>([&] { run(options); }, {"--swap", "in place"});
}

TEST(CopiedTablePlan, KeepsOtherWeightsFirst) {
  ModelConfig config = test::tiny_llama();
  config.tied = true;
  config.vocab_size = 10'000;
  config.hidden = 256;
  config.intermediate = 1024;
  config.layers = 14;  // with 16 blocks the table would be the first to stay
  Model model = make_transformer(config);
  model.freeze_all();
  GeneratorOptions options = test::tiny_generator();
  options.swap = {{.path = "nowhere"}};
  options.rows = 16;
  const GenerationPlan all = plan_generation(model, 0, 1, options, {});
  const std::uint64_t everything = all.dram();
  options.kv_bytes = all.kv;
  options.residency = false;
  const GenerationPlan none = plan_generation(model, 0, 1, options, {});
  const std::uint64_t all_weights = none.streamed;
  EXPECT_GT(none.swap, 2u << 20);
  options.residency = true;
  const auto table = static_cast<std::size_t>(model.block_count());
  int plans = 0;
  for (std::uint64_t budget = none.dram(); budget < everything; budget += 3 << 20, ++plans) {
    options.dram_bytes = budget;
    const GenerationPlan plan = plan_generation(model, 0, 1, options, {});
    EXPECT_LE(plan.dram(), budget);
    EXPECT_TRUE(plan.copies_table);
    EXPECT_EQ(plan.homes[table], WeightHome::kSwap);
    EXPECT_EQ(plan.streamed, all_weights - plan.resident);
    EXPECT_EQ(plan.swap, plan.streamed) << "the table streams for the logits, from the same copy";
  }
  EXPECT_GT(plans, 5);
  options.dram_bytes = everything;
  EXPECT_FALSE(plan_generation(model, 0, 1, options, {}).looks_up);
}

constexpr auto kFamilies = std::to_array({"llama", "llama_tied", "gpt2", "gpt2_tied"});
std::string family(const testing::TestParamInfo<const char*>& model) { return model.param; }
INSTANTIATE_TEST_SUITE_P(Families, LargeTable, testing::ValuesIn(kFamilies), family);
INSTANTIATE_TEST_SUITE_P(Families, CopiedTable, testing::ValuesIn(kFamilies), family);
INSTANTIATE_TEST_SUITE_P(Families, TiedCopiedTable, testing::Values("llama_tied", "gpt2_tied"),
                         family);

TEST(StoredRange, TakesGroupsOnlyAsTheyAre) {
  EXPECT_TRUE(is_kept_as(Dtype::kBf16, Dtype::kF32));
  EXPECT_TRUE(is_kept_as(Dtype::kQ8, Dtype::kQ8));
  EXPECT_FALSE(is_kept_as(Dtype::kQ8, Dtype::kBf16));
  EXPECT_FALSE(is_kept_as(Dtype::kBf16, Dtype::kQ8));
  EXPECT_FALSE(is_kept_as(Dtype::kQ4, Dtype::kQ8));
}

}  // namespace
}  // namespace strata
