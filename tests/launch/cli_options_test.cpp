#include <gtest/gtest.h>

#include <algorithm>

#include <CLI/CLI.hpp>

#include "launch/cli/bench_options.h"
#include "launch/cli/generate_options.h"
#include "launch/cli/plan_options.h"
#include "launch/cli/train_options.h"
#include "tests/support/parsed_options.h"
#include "tests/support/temporary_directory.h"

namespace strata::cli {
namespace {

PlanOptions plan(const std::vector<std::string>& arguments) {
  return test::parse(add_plan_flags, arguments);
}
BenchOptions bench(const std::vector<std::string>& arguments) {
  return test::parse(add_bench_flags, arguments);
}

TEST(PlanOptions, TakesAPresetOrAModelAndAMachine) {
  const PlanOptions options =
      plan({"--preset", "gpt-1t", "--ranks", "512", "--ranks-per-node", "8", "--tokens", "1048576",
            "--read-bandwidth", "26GB", "--teraflops", "500", "--json"});
  EXPECT_EQ(options.preset, "gpt-1t");
  EXPECT_EQ(options.ranks, 512);
  EXPECT_EQ(options.tokens, 1048576);
  EXPECT_EQ(options.machine.read_bandwidth.value(), 26000000000u);
  EXPECT_EQ(options.machine.teraflops, 500);
  EXPECT_TRUE(options.json);
  EXPECT_NO_THROW(check(options));
}

TEST(PlanOptions, RefusesWhatItCannotPlan) {
  EXPECT_REFUSED(check(plan({})), "--model DIR or --preset NAME");
  EXPECT_REFUSED(plan({"--preset", "gpt-1b"}), "--preset: \"gpt-1b\" is not one of");
  EXPECT_THROW(plan({"--preset", "gpt-1t", "--model", "m"}), CLI::ParseError);
  EXPECT_REFUSED(check(plan({"--model", "/nowhere"})), "--model: /nowhere does not exist");
  EXPECT_REFUSED(check(plan({"--preset", "gpt-1t", "--ranks", "6", "--ranks-per-node", "4"})),
                 "6 ranks are not a multiple of 4");
}

TEST(BenchOptions, ReadsWhatToMeasure) {
  const test::TemporaryDirectory directory;
  const BenchOptions options = bench({"io", "--swap", directory.path(), "--seconds", "2",
                                      "--block-size", "64k", "--depth", "8", "--sweep"});
  EXPECT_EQ(options.target, BenchTarget::kIo);
  EXPECT_EQ(options.block_size, 65536u);
  EXPECT_EQ(options.depth, 8);
  EXPECT_TRUE(options.sweep);
  EXPECT_NO_THROW(check(options));
  EXPECT_EQ(bench({"adamw"}).target, BenchTarget::kAdamW);
  EXPECT_NO_THROW(check(bench({"collectives"})));
}

TEST(BenchOptions, RefusesWhatItCannotMeasure) {
  EXPECT_REFUSED(bench({"matmull"}), "did you mean matmul?");
  EXPECT_THROW(bench({}), CLI::RequiredError);
  EXPECT_REFUSED(check(bench({"io"})), "--swap: bench io needs a directory");
  EXPECT_REFUSED(check(bench({"io", "--swap", "/", "--block-size", "5000"})), "multiple of 4 KiB");
  EXPECT_REFUSED(check(bench({"io", "--swap", "/", "--file-size", "64k"})), "--file-size");
}

TEST(BenchOptions, ReadsTheCellsOfGeneration) {
  const test::TemporaryDirectory directory;
  const std::string& path = directory.path();
  const GenerateBenchOptions options =
      bench({"generate", "--model", "opt-125m,opt-66b", "--tier", "dram,gen5=" + path, "--tier",
             "gen4=" + path, "--limit-read", "gen4=7GB", "--batch", "1,128,200", "--new-tokens",
             "64", "--rounds", "3", "--power-command", "echo 1, 2"})
          .generate;
  EXPECT_NO_THROW(check(options));
  EXPECT_EQ(options.models, (std::vector<std::string>{"opt-125m", "opt-66b"}));
  EXPECT_EQ(options.tiers, (std::vector<TierChoice>{{"dram", ""}, {"gen5", path}, {"gen4", path}}));
  EXPECT_EQ(options.limit_of("gen4"), 7e9);
  EXPECT_EQ(options.limit_of("gen5"), 0);
  EXPECT_EQ(options.batches, (std::vector<std::int64_t>{1, 128, 200}));
  EXPECT_EQ(options.new_tokens, 64);
  EXPECT_EQ(options.power_command, "echo 1, 2");
  const GenerateBenchOptions usual = bench({"generate", "--limit-read", "3GB"}).generate;
  EXPECT_NO_THROW(check(usual));
  EXPECT_EQ(usual.tiers, (std::vector<TierChoice>{{"dram", ""}}));
  EXPECT_EQ(usual.batches.back(), 256);
  EXPECT_EQ(usual.limit_of("any"), 3e9);
  EXPECT_EQ(usual.limit_of("dram"), 0);
}

TEST(BenchOptions, RefusesCellsThatCannotBe) {
  const auto refuse = [](const std::vector<std::string>& flags, const char* part) {
    std::vector<std::string> words{"generate"};
    words.insert(words.end(), flags.begin(), flags.end());
    EXPECT_REFUSED(check(bench(words)), part);
  };
  refuse({"--model", "opt-9000b"}, "opt-9000b");
  refuse({"--tier", "gen5"}, "gen5=/nvme5");
  refuse({"--tier", "dram=/"}, "--tier");
  refuse({"--tier", "=/"}, "--tier");
  refuse({"--tier", "a=/nowhere"}, "--tier: /nowhere does not exist");
  refuse({"--tier", "a=/,a=/"}, "twice");
  refuse({"--limit-read", "gen4=7GB"}, "no drive \"gen4\"");
  refuse({"--limit-read", "0"}, "--limit-read");
  refuse({"--limit-read", "=1GB"}, "--limit-read");
  refuse({"--batch", "1,0"}, "--batch: \"0\"");
  refuse({"--batch", "8x"}, "--batch");
  refuse({"--weights", "int3"}, "--weights: \"int3\"");
  refuse({"--kv", "fp32"}, "--kv");
  refuse({"--prices", "/nowhere"}, "--prices");
  refuse({"--svg", "picture.png"}, "--svg");
}

/// `-` and `_` are alike, so two flags that differ only in those would be one.
template <typename Options>
void expect_distinct_flags(void (*add)(CLI::App&, Options&)) {
  CLI::App app;
  Options options;
  add(app, options);
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (std::string name : option->get_lnames()) {
      std::replace(name.begin(), name.end(), '_', '-');
      EXPECT_EQ(std::count(names.begin(), names.end(), name), 0) << name;
      names.push_back(name);
    }
    EXPECT_FALSE(option->get_description().empty());
  }
}

TEST(Options, HaveNamesThatDifferInMoreThanHyphensAndAllHaveHelp) {
  expect_distinct_flags(add_train_flags);
  expect_distinct_flags(add_plan_flags);
  expect_distinct_flags(add_bench_flags);
  expect_distinct_flags<GenerateOptions>(add_generate_flags);
}

}  // namespace
}  // namespace strata::cli
