#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/launch/byte_model_config.h"
#include "tests/support/run_program.h"

namespace strata::test {

using Words = std::vector<std::string>;

/// A tiny model and a text, for `strata train` as its users meet it: whole processes.
class TrainProgram : public testing::Test {
 protected:
  void SetUp() override {
    setenv("XDG_CACHE_HOME", path("cache").c_str(), 1);
    write_file(directory_ / "shape.json", to_json(byte_model_config(64)));
    const ProgramResult made = run_program(
        {STRATA_PROGRAM, "init", "--config", path("shape.json"), "--out", path("model")});
    ASSERT_EQ(made.exit_code, 0) << made.errors;
    std::string text;
    for (int i = 0; i < 400; ++i) text += "the quick brown fox jumps over the lazy dog. ";
    write_file(directory_ / "text.txt", text);
    std::filesystem::create_directory(directory_ / "swap");
  }

  std::string path(const std::string& name) const { return (directory_ / name).string(); }

  /// The command with `more` flags and values, which replace those of the same name.
  Words train(const Words& more) const {
    std::vector<std::pair<std::string, std::string>> flags = {
        {"--model", path("model")}, {"--data", path("text.txt")},
        {"--out", path("out")},     {"--sequence_length", "32"},
        {"--max_steps", "4"},       {"--per_device_train_batch_size", "2"},
        {"--dram", "256MiB"}};
    std::erase_if(flags,
                  [&](const auto& flag) { return std::ranges::count(more, flag.first) > 0; });
    Words words = {STRATA_PROGRAM, "train"};
    for (const auto& [flag, value] : flags) words.insert(words.end(), {flag, value});
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  static Words on_ranks(int ranks, const Words& program, const Words& launcher_flags = {}) {
    Words words = {"env",
                   "OMPI_ALLOW_RUN_AS_ROOT=1",
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                   "OMPI_MCA_rmaps_base_oversubscribe=1",
                   STRATA_MPIEXEC,
                   "-n",
                   std::to_string(ranks)};
    words.insert(words.end(), launcher_flags.begin(), launcher_flags.end());
    words.insert(words.end(), program.begin(), program.end());
    return words;
  }

  /// Exit code not 0, one message that names all `parts`, within two seconds, and nothing left
  /// behind.
  void expect_refused(const Words& command, const Words& parts) {
    const auto begin = std::chrono::steady_clock::now();
    const ProgramResult result = run_program(command);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
    EXPECT_NE(result.exit_code, 0) << result.output;
    for (const std::string& part : parts) {
      EXPECT_NE(result.errors.find(part), std::string::npos)
          << "\"" << part << "\" is not in: " << result.errors;
    }
    EXPECT_FALSE(std::filesystem::exists(directory_ / "out")) << result.errors;
    EXPECT_TRUE(std::filesystem::is_empty(directory_ / "swap"));
  }

  /// Rows of metrics.jsonl that have `key`: "loss" for steps, "eval_loss" for evaluations.
  std::vector<nlohmann::json> metrics(const char* key = "loss") const {
    std::vector<nlohmann::json> lines;
    std::ifstream file(path("out/metrics.jsonl"));
    for (std::string line; std::getline(file, line);) {
      lines.push_back(nlohmann::json::parse(line));
      if (!lines.back().contains(key)) lines.pop_back();
    }
    return lines;
  }

  /// TensorBoard's, in the output directory.
  int event_files() const {
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory_ / "out")) {
      files += entry.path().filename().string().starts_with("events.out.tfevents.") ? 1 : 0;
    }
    return files;
  }

  TemporaryDirectory directory_;
};

}  // namespace strata::test
