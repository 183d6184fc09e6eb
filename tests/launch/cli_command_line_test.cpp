#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "launch/cli/command_line.h"

namespace strata::cli {
namespace {

class SpellFlags : public testing::Test {
 protected:
  SpellFlags() {
    CLI::App* train = app_.add_subcommand("train");
    train->add_option("--max_steps", steps_);
    train->add_option("--io-engine,-i", engine_);
    app_.add_subcommand("bench");
  }

  std::string message_of(const std::vector<std::string>& arguments) {
    try {
      spell_flags(app_, arguments);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  CLI::App app_;
  int steps_ = 0;
  std::string engine_;
};

TEST_F(SpellFlags, TakesHyphenAndUnderscoreAlike) {
  const std::vector<std::string> declared = {"train", "--max_steps", "3", "--io-engine=uring"};
  EXPECT_EQ(spell_flags(app_, {"train", "--max-steps", "3", "--io_engine=uring"}), declared);
  EXPECT_EQ(spell_flags(app_, declared), declared);
}

TEST_F(SpellFlags, LeavesValuesAlone) {
  const std::vector<std::string> arguments = {
      "train", "a_b-c", "-i", "x_y", "--max_steps=1_0-0", "--", "--max-steps"};
  EXPECT_EQ(spell_flags(app_, arguments), arguments);
}

TEST_F(SpellFlags, NamesTheNearestFlagOfTheCommand) {
  EXPECT_EQ(message_of({"train", "--max-stpes", "3"}),
            "unknown flag --max-stpes; did you mean --max_steps? See strata train --help");
  EXPECT_EQ(message_of({"train", "--frobnicate=1"}),
            "unknown flag --frobnicate; see strata train --help");
  EXPECT_EQ(message_of({"bench", "--max_steps"}),
            "unknown flag --max_steps; see strata bench --help");
}

TEST_F(SpellFlags, NamesTheNearestCommand) {
  EXPECT_EQ(message_of({"trian"}),
            "there is no command trian; did you mean train? See strata --help");
  EXPECT_EQ(message_of({"--max_steps", "train"}), "unknown flag --max_steps; see strata --help");
}

}  // namespace
}  // namespace strata::cli
