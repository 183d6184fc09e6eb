#include "launch/cli/generate_options.h"

#include <gtest/gtest.h>

#include <algorithm>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata::cli {
namespace {

class GenerateFlags : public testing::Test {
 protected:
  /// Parsed and checked, for a model directory that is there.
  const GenerateOptions& parse(std::vector<std::string> arguments) {
    options_ = std::make_unique<GenerateOptions>();
    CLI::App app;
    add_generate_flags(app, *options_);
    arguments.insert(arguments.begin(), {"--model", directory_.path()});
    std::reverse(arguments.begin(), arguments.end());
    app.parse(arguments);
    check(*options_);
    return *options_;
  }
  void expect_refused(const std::vector<std::string>& arguments,
                      const std::vector<std::string>& parts) {
    test::expect_message<UsageError>([&] { parse(arguments); }, parts);
  }
  test::TemporaryDirectory directory_;
  std::unique_ptr<GenerateOptions> options_;
};

TEST_F(GenerateFlags, WhatIsNotGivenIsLeftToTheModel) {
  const RequestOverrides& none = parse({"--prompt", ""}).overrides;
  EXPECT_EQ(options_->prompt, "");
  EXPECT_FALSE(none.max_tokens || none.temperature || none.top_k || none.top_p || none.min_p ||
               none.repetition_penalty || none.seed || none.log_probabilities);
  EXPECT_TRUE(none.stop.empty());
}

TEST_F(GenerateFlags, ABatchIsANumberOrAuto) {
  EXPECT_FALSE(parse({"--prompt", ""}).batch.most);
  EXPECT_EQ(parse({"--prompt", "", "--batch", "12"}).batch.most, 12);
  EXPECT_FALSE(parse({"--prompt", "", "--batch", "auto"}).batch.most);
  expect_refused({"--prompt", "", "--batch", "0"}, {"--batch", "\"0\"", "auto", "1 to 65536"});
  EXPECT_EQ(parse({"--prompt", "", "--objective", "latency"}).batch.objective, Objective::kLatency);
}

TEST_F(GenerateFlags, WhatIsGivenGoesOverTheModel) {
  const RequestOverrides& all = parse({"--prompt",
                                       "x",
                                       "--out",
                                       "o",
                                       "--max_new_tokens",
                                       "7",
                                       "--temperature",
                                       "0.5",
                                       "--top_k",
                                       "3",
                                       "--top_p",
                                       "0.25",
                                       "--min_p",
                                       "0.125",
                                       "--repetition_penalty",
                                       "1.5",
                                       "--seed",
                                       "9",
                                       "--stop",
                                       "a b",
                                       "--stop",
                                       "c",
                                       "--stop_ids",
                                       "1,<|im_end|>",
                                       "--logprobs"})
                                    .overrides;
  EXPECT_EQ(all.max_tokens, 7);
  EXPECT_EQ(all.temperature, 0.5);
  EXPECT_EQ(all.top_k, 3);
  EXPECT_EQ(all.top_p, 0.25);
  EXPECT_EQ(all.min_p, 0.125);
  EXPECT_EQ(all.repetition_penalty, 1.5);
  EXPECT_EQ(all.seed, 9u);
  EXPECT_EQ(all.stop, (std::vector<std::string>{"a b", "c"}));
  EXPECT_EQ(options_->stop_ids, (std::vector<std::string>{"1", "<|im_end|>"}));
  EXPECT_EQ(all.log_probabilities, true);
  EXPECT_EQ(parse({"--prompt", "x", "--greedy"}).overrides.temperature, 0);
}

TEST_F(GenerateFlags, RowsComeFromAFileOrStandardInput) {
  const auto file = test::write_file(directory_ / "rows.jsonl", "{}");
  EXPECT_EQ(parse({"--prompts", file.string()}).prompts, file);
  EXPECT_EQ(parse({"-"}).prompts, "-");
  EXPECT_EQ(parse({"--prompts", "-"}).prompts, "-");
  expect_refused({"rows.jsonl"}, {"\"rows.jsonl\"", "--prompts"});
  expect_refused({"-", "--trace", "/nowhere/t.json"}, {"--trace", "/nowhere is no directory"});
  expect_refused({}, {"nothing to go on with", "--prompt TEXT"});
  expect_refused({"--prompt", "x", "-"}, {"--prompt and --prompts"});
  expect_refused({"--prompts", (directory_ / "none").string()}, {"--prompts"});
}

TEST_F(GenerateFlags, WeightsAreKeptAsProductsWantThemOrQuantized) {
  EXPECT_EQ(parse({"--prompt", "x"}).kept.weights, Dtype::kBf16);
  EXPECT_EQ(parse({"--prompt", "x", "--weights", "int8"}).kept.weights, Dtype::kQ8);
  EXPECT_EQ(parse({"--prompt", "x", "--weights", "int4", "--cache", "c"}).kept.weights, Dtype::kQ4);
  EXPECT_EQ(options_->kept.cache, "c");
  expect_refused({"--prompt", "x", "--weights", "int5"}, {"--weights: \"int5\"", "int4"});
}

TEST_F(GenerateFlags, ContradictionsAreRefused) {
  expect_refused({"-", "--resume"}, {"--resume: needs the --out"});
  expect_refused({"--prompt", "x", "--out", "o", "--resume"}, {"--resume: is for --prompts"});
  expect_refused({"-", "--chat"}, {"--chat: is for --prompt"});
  expect_refused({"--prompt", "x", "--greedy", "--temperature", "1"}, {"--greedy and"});
  expect_refused({"--prompt", "x", "--stop", ""}, {"--stop: the string is empty"});
  expect_refused({"--prompt", "x", "--logprobs"}, {"--logprobs: needs --out"});
  expect_refused({"--prompt", "x", "--compute", "fp16"}, {"--compute fp16"});
  expect_refused({"--prompt", "x", "--top_p", "0"}, {"--top_p: \"0\""});
}

TEST(StopIds, AreNumbersOrTokens) {
  const auto tokenizer = make_byte_tokenizer();
  EXPECT_EQ(parse_stop_ids({"7", "<|endoftext|>"}, *tokenizer),
            (std::vector<std::int32_t>{7, 256}));
  test::expect_message<UsageError>([&] { parse_stop_ids({"<|im_end|>"}, *tokenizer); },
                                   {"--stop_ids: \"<|im_end|>\" is no token", "--stop"});
  test::expect_message<UsageError>([&] { parse_stop_ids({"257"}, *tokenizer); },
                                   {"--stop_ids: 257 is not from 0 to 256"});
}

}  // namespace
}  // namespace strata::cli
