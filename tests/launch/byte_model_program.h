#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "launch/generation/line_reader.h"
#include "tests/launch/byte_model_config.h"
#include "tests/support/run_program.h"

namespace strata::test {

/// A small model of bytes with fresh weights, for commands that generate, as their users run them.
class ByteModelProgram : public testing::Test {
 protected:
  void SetUp() override {
    ModelConfig config = byte_model_config(128);
    config.vocab_size = 300;  // the tokenizer has 257
    write_file(directory_ / "shape.json", to_json(config));
    const ProgramResult made =
        run({"init", "--config", path("shape.json"), "--out", path("model")});
    ASSERT_EQ(made.exit_code, 0) << made.errors;
  }

  std::string path(const char* name) const { return (directory_ / name).string(); }

  /// What starts a job, without the program.
  static std::vector<std::string> launcher(int ranks) {
    if (ranks == 1) return {};
    return {STRATA_MPIEXEC, "--allow-run-as-root", "--oversubscribe", "-n", std::to_string(ranks)};
  }

  ProgramResult run(const std::vector<std::string>& arguments, int ranks = 1) const {
    std::vector<std::string> command = launcher(ranks);
    command.emplace_back(STRATA_PROGRAM);
    command.insert(command.end(), arguments.begin(), arguments.end());
    return run_program(command);
  }

  /// Lines of results, by id.
  std::map<std::string, nlohmann::json> results(const char* name) const {
    std::map<std::string, nlohmann::json> all;
    LineReader lines(directory_ / name);
    while (const auto line = lines.next()) {
      nlohmann::json result = nlohmann::json::parse(*line);
      const nlohmann::json id = result.contains("custom_id") ? result["custom_id"] : result["id"];
      EXPECT_TRUE(all.emplace(id.is_string() ? id.get<std::string>() : id.dump(), result).second);
    }
    return all;
  }

  TemporaryDirectory directory_;
};

}  // namespace strata::test
