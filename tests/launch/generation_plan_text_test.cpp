#include <gtest/gtest.h>

#include <algorithm>

#include "launch/generation/plan_text.h"

namespace strata {
namespace {

KnownRates measured() {
  KnownRates rates;
  rates.step.operations = 100e9;
  rates.memory_read = 10e9;
  rates.step.drive.read = 1e9;
  return rates;
}

bool says(const std::vector<std::string>& lines, const std::string& part) {
  return std::ranges::any_of(
      lines, [&](const std::string& line) { return line.find(part) != std::string::npos; });
}

TEST(GenerationPlanText, SaysWhatBindsAndHowLongItTakes) {
  GenerationPlan plan;
  plan.kv = 1000 * 1000;
  plan.streamed = 2'000'000'000;  // 2 s
  plan.weights = 3'000'000'000;   // 0.3 s
  plan.operations_per_row = 2e9;  // 0.2 s for ten texts
  GeneratorOptions options;
  options.sequences = 10;
  const GenerationWork work{.texts = 40, .prompt_tokens = 40, .new_tokens = 400};
  const auto lines = generation_plan_lines(plan, options, 1000, 1, work, measured(), {});
  EXPECT_TRUE(says(lines, "each of 10 texts: at least 2"));
  EXPECT_TRUE(says(lines, "bound by the drive: 5 tokens/s"));
  EXPECT_TRUE(says(lines, "40 texts, 40 tokens of prompt and up to 400 new ones"));
  EXPECT_FALSE(says(lines, "rough"));

  // Keys and values for 5 texts of 11 tokens each; 2 ranks share the drive.
  plan.kv = 60 * 1000;
  const auto shared = generation_plan_lines(plan, options, 1000, 2, work, measured(), {});
  EXPECT_TRUE(says(shared, "each of 10 texts: at least 4"));

  plan.streamed = 0;
  const auto resident = generation_plan_lines(plan, options, 1000, 1, work, measured(), {});
  EXPECT_TRUE(says(resident, "nothing is read"));
  EXPECT_FALSE(says(resident, "looks up"));
  EXPECT_TRUE(says(resident, "bound by memory"));
}

TEST(GenerationPlanText, NeedsNoText) {
  GenerationPlan plan;
  plan.kv = 64 * 1000;
  GeneratorOptions options;
  for (const std::int64_t tokens : {0, 1, 2}) {
    options.sequence_tokens = tokens;
    EXPECT_FALSE(generation_plan_lines(plan, options, 1000, 1, {}, measured(), {}).empty());
  }
}

TEST(GenerationPlanText, SaysThatRowsAreLookedUpAndWhatIsCopied) {
  GenerationPlan plan;
  plan.kv = 1000 * 1000;
  plan.looks_up = true;
  const auto rows_only = generation_plan_lines(plan, {}, 1000, 1, {}, measured(), {});
  EXPECT_FALSE(says(rows_only, "nothing is read"));
  EXPECT_TRUE(says(rows_only, "rows of the embedding that it looks up"));
  EXPECT_FALSE(says(rows_only, "copied to swap"));
  plan.streamed = 1 << 20;
  plan.swap = 3 << 20;  // more than what streams: the table, too
  const auto copied = generation_plan_lines(plan, {}, 1000, 1, {}, measured(), {});
  EXPECT_TRUE(says(copied, "streams 1 MiB of weights"));
  EXPECT_TRUE(says(copied, "; 3 MiB are copied to swap first"));
}

TEST(HiddenRows, AreThoseThatTheSlowestWayOfWeightsLeavesTimeFor) {
  GenerationPlan plan;
  plan.weights = 1'000'000'000;        // 100 ms
  plan.operations_per_row = 0.9e9;     // 9 ms
  plan.operations_per_logits = 0.1e9;  // 1 ms
  EXPECT_EQ(hidden_rows(plan, measured(), 1), 10);
  plan.streamed = 500'000'000;  // 500 ms
  EXPECT_EQ(hidden_rows(plan, measured(), 1), 50);
  EXPECT_EQ(hidden_rows(plan, measured(), 2), 100) << "ranks share the drive";
  plan.operations_per_row = 1e12;
  EXPECT_EQ(hidden_rows(plan, measured(), 1), 1) << "that of the next token";
}

TEST(GenerationPlanText, SaysWhatOtherWeightsGiveAndWhatIsNotMeasured) {
  GenerationPlan plan;
  plan.kv = 1000 * 1000;
  plan.streamed = 2'000'000'000;
  GenerationPlan fewer = plan;
  fewer.streamed = 500'000'000;
  KnownRates rates = measured();
  rates.origins.push_back({.what = "drive reads", .remedy = "strata bench io"});
  const auto lines = generation_plan_lines(plan, {}, 1000, 1, {}, rates, {{"int4", fewer}});
  EXPECT_TRUE(says(lines, "--weights int4 would stream"));
  EXPECT_TRUE(says(lines, "until this machine is measured: strata bench io"));
  EXPECT_FALSE(says(lines, "texts, "));
}

}  // namespace
}  // namespace strata
