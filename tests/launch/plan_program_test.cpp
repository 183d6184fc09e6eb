#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/support/run_program.h"

namespace strata {
namespace {

/// Profiles go to, and come from, a directory of the test's own.
class MeasuringProgram : public testing::Test {
 protected:
  MeasuringProgram() { setenv("XDG_CACHE_HOME", cache_.path().c_str(), 1); }
  ~MeasuringProgram() override { unsetenv("XDG_CACHE_HOME"); }

  static test::ProgramResult strata(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), STRATA_PROGRAM);
    return test::run_program(arguments);
  }
  static nlohmann::json json_of(const std::vector<std::string>& arguments) {
    const test::ProgramResult result = strata(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    return nlohmann::json::parse(result.output, nullptr, false);
  }
  static void expect_refused(const std::vector<std::string>& arguments, const std::string& words) {
    const test::ProgramResult result = strata(arguments);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.errors.find(words), std::string::npos) << result.errors;
    EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
  }

  test::TemporaryDirectory cache_;
  test::TemporaryDirectory directory_;
};

TEST_F(MeasuringProgram, PlansAPresetAsTextAndAsJson) {
  const auto text = strata({"plan", "--preset", "gpt-406m", "--swap", directory_.path(), "--dram",
                            "2GiB", "--drive-endurance", "600"});
  EXPECT_EQ(text.exit_code, 0) << text.errors;
  for (const char* words : {"parameters, upper half", "Adam v", "boundary activations",
                            "compute hides I/O", "smallest budgets", "1000 steps write",
                            "rated for 600 TB", "assumed: measure it with strata bench io",
                            "strata init --preset gpt-406m", "strata train --model gpt-406m"}) {
    EXPECT_NE(text.output.find(words), std::string::npos) << words << "\n" << text.output;
  }
  const auto json = json_of({"plan", "--preset", "gpt-406m", "--swap", directory_.path(), "--dram",
                             "2GiB", "--json", "--read-bandwidth", "6GB"});
  EXPECT_LE(json["bytes_of_rank"]["dram"], std::uint64_t{2} << 30);
  EXPECT_EQ(json["rates"][0]["per_second"], 6e9);
  EXPECT_EQ(json["rates"][0]["origin"], "given");
  EXPECT_GT(json["bytes_of_rank"]["swap_free_of_node"], 0);
}

TEST_F(MeasuringProgram, PlansADirectoryFromConfigJsonAlone) {
  std::ofstream(directory_ / "config.json") << R"({"model_type": "llama", "vocab_size": 1000,
      "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
      "intermediate_size": 128, "max_position_embeddings": 128})";
  const auto json = json_of({"plan", "--model", directory_.path(), "--json"});
  EXPECT_EQ(json["job"]["sequence_length"], 128);
  EXPECT_EQ(json["job"]["blocks"], 4);
  EXPECT_EQ(json["bytes_of_rank"]["swap"], 0) << "a small model needs no swap";
  expect_refused({"plan", "--model", directory_.path(), "--dram", "100KiB"}, "--dram: 100 KiB");
}

TEST_F(MeasuringProgram, PlansATrillionParametersOnAnyMachine) {
  const auto result = strata({"plan", "--preset", "gpt-1t", "--ranks", "512", "--ranks-per-node",
                              "8", "--tokens", "1048576"});
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_NE(result.output.find("the memory wall"), std::string::npos);
  EXPECT_NE(result.output.find("20 bytes a parameter"), std::string::npos);
  EXPECT_NE(result.output.find("mpirun -n 512"), std::string::npos);
}

TEST_F(MeasuringProgram, CutsTokensIntoMicroBatches) {
  const auto json =
      json_of({"plan", "--preset", "llama-26m", "--tokens", "24576", "--ranks", "2",
               "--sequence_length", "512", "--per_device_train_batch_size", "10", "--json"});
  // 24 sequences per rank: 8 at a time, three times.
  EXPECT_EQ(json["job"]["per_device_train_batch_size"], 8);
  EXPECT_EQ(json["job"]["gradient_accumulation_steps"], 3);
  EXPECT_EQ(json["job"]["tokens_per_step"], 24576);
  expect_refused({"plan", "--preset", "llama-26m", "--tokens", "1000"}, "--tokens: 1000");
}

TEST_F(MeasuringProgram, PrintsEveryFlagThatMatters) {
  const std::vector<std::string> flags{"--swap-capacity",  "8589934592", "--io-engine", "threads",
                                       "--prefetch-depth", "2",          "--optim",     "lion",
                                       "--residency",      "none",       "--stage",     "2",
                                       "--dropout",        "0.25"};
  std::vector<std::string> arguments{"plan", "--preset", "gpt-162m", "--swap", directory_.path()};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  const auto text = strata(arguments);
  EXPECT_EQ(text.exit_code, 0) << text.errors;
  for (std::size_t i = 0; i < flags.size(); i += 2) {
    EXPECT_NE(text.output.find(" " + flags[i] + " " + flags[i + 1]), std::string::npos)
        << flags[i] << "\n"
        << text.output;
  }
  EXPECT_EQ(text.output.find("Adam v"), std::string::npos) << "Lion has none";
}

TEST_F(MeasuringProgram, ShowsHowADeepSpeedConfigurationWasUnderstood) {
  const std::string file = directory_ / "ds.json";
  std::ofstream(file) << R"({"train_batch_size": 16, "gradient_accumulation_steps": 2,
      "bf16": {"enabled": true}, "optimizer": {"type": "Lion", "params": {"lr": "auto"}},
      "zero_optimization": {"stage": 3, "overlap_comm": true,
        "offload_optimizer": {"device": "nvme", "nvme_path": ")"
                      << directory_.path() << R"("}},
      "strata": {"dram": "1500MB", "max_steps": 7}})";
  const std::vector<std::string> arguments{"plan", "--preset", "gpt-162m", "--ranks",
                                           "2",    "--config", file};
  const auto text = strata(arguments);
  EXPECT_EQ(text.exit_code, 0) << text.errors;
  for (const char* words :
       {"ds.json as understood", "zero_optimization.offload_optimizer.device", "--place lo=swap",
        "without effect here: zero_optimization.overlap_comm", "2 micro-batches x 4 sequences",
        "--max_steps 7", "every parameter"}) {
    EXPECT_NE(text.output.find(words), std::string::npos) << words << "\n" << text.output;
  }
  EXPECT_EQ(text.output.find("Adam v"), std::string::npos) << text.output;
  std::vector<std::string> with_json = arguments;
  with_json.emplace_back("--json");
  const auto json = json_of(with_json);
  EXPECT_EQ(json["config"]["settings"][0]["key"], "strata.dram");
  EXPECT_EQ(json["config"]["ignored"][0], "zero_optimization.overlap_comm");
  const std::string command = json["command"];
  EXPECT_NE(command.find("--config " + file), std::string::npos) << command;
  EXPECT_EQ(command.find("--dram"), std::string::npos) << "the file has it: " << command;
  expect_refused({"plan", "--preset", "gpt-162m", "--config", file, "--dram", "1GiB"},
                 "strata.dram: \"1500MB\" contradicts --dram 1GiB");
  std::ofstream(file) << R"({"zero_optimisation": {}})";
  expect_refused(arguments, "did you mean zero_optimization?");
}

TEST_F(MeasuringProgram, PlansForFp16) {
  const std::vector<std::string> arguments{"plan", "--preset", "gpt-162m",        "--compute",
                                           "fp16", "--swap",   directory_.path(), "--dram",
                                           "1GiB"};
  const auto text = strata(arguments);
  EXPECT_EQ(text.exit_code, 0) << text.errors;
  EXPECT_NE(text.output.find(" --compute fp16"), std::string::npos) << text.output;
  std::vector<std::string> fused = arguments;
  fused.insert(fused.end(), {"--update", "fused"});
  expect_refused(fused, "--compute fp16 overflow; use --update lazy");
}

TEST_F(MeasuringProgram, RefusesBudgetsThatDoNotWork) {
  expect_refused({"plan"}, "--preset");
  expect_refused({"plan", "--preset", "gpt-406m", "--dram", "64MiB"}, "use --dram");
  expect_refused({"plan", "--preset", "gpt-406m", "--swap", directory_.path(), "--dram", "2GiB",
                  "--swap-capacity", "1MiB"},
                 "--swap-capacity 1 MiB");
  expect_refused({"plan", "--preset", "gpt2-124m", "--sequence_length", "4096"},
                 "--sequence_length: 4096");
}

TEST_F(MeasuringProgram, WhatBenchMeasuresIsWhatPlanUses) {
  const std::string path = std::getenv("PATH");
  setenv("PATH", "", 1);  // no fio, whose runs take whole seconds
  const auto io = json_of({"bench", "io", "--swap", directory_.path(), "--seconds", "0.3",
                           "--file-size", "64MiB", "--json"});
  setenv("PATH", path.c_str(), 1);
  ASSERT_EQ(io["drives"].size(), 1u);
  EXPECT_TRUE(io["drives"][0]["mixed"]["fraction"].is_null());
  EXPECT_GT(io["drives"][0]["read"]["read"], 0);
  const auto adamw = json_of({"bench", "adamw", "--seconds", "0.1", "--json"});
  EXPECT_GT(adamw["fraction"], 0);
  const auto matmul = json_of({"bench", "matmul", "--preset", "llama-26m", "--seconds", "0.5",
                               "--sequence_length", "64", "--sequences", "1", "--json"});
  EXPECT_GT(matmul["blocks_gflops"], 0);
  EXPECT_GT(matmul["fraction"], 0);
  EXPECT_EQ(matmul["products"].size(),
            20u);  // of four layers three, and two with quantised weights
  EXPECT_GT(matmul["quantized_gflops"]["int8"], 0);
  EXPECT_GT(matmul["quantized_gflops"]["int4"], 0);
  const auto plan = json_of(
      {"plan", "--preset", "gpt-162m", "--swap", directory_.path(), "--dram", "1GiB", "--json"});
  for (const auto& rate : plan["rates"]) EXPECT_EQ(rate["origin"], "measured") << rate;
  EXPECT_EQ(plan["rates"][1]["per_second"], io["drives"][0]["write"]["write"]);
}

TEST_F(MeasuringProgram, BenchMemoryPrintsItsLoops) {
  const auto json = json_of({"bench", "memory", "--seconds", "0.1", "--json"});
  EXPECT_GT(json["triad_gb_per_second"], 0);
  EXPECT_NE(strata({"bench", "memory", "--seconds", "0.1"}).output.find("triad"),
            std::string::npos);
}

TEST_F(MeasuringProgram, BenchRefusesWhatItCannotMeasure) {
  const auto alone = strata({"bench", "collectives"});
  EXPECT_EQ(alone.exit_code, 2);
  EXPECT_NE(alone.errors.find("mpirun -n 2"), std::string::npos) << alone.errors;
  expect_refused({"bench", "io"}, "--swap");
}

}  // namespace
}  // namespace strata
