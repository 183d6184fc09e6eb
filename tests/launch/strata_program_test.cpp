#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/run_program.h"

namespace strata {
namespace {

test::ProgramResult strata(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), STRATA_PROGRAM);
  return test::run_program(arguments);
}

/// A refusal is one line that begins with the program's name.
void expect_one_line(const test::ProgramResult& result) {
  EXPECT_TRUE(result.errors.starts_with("strata: ")) << result.errors;
  EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
  EXPECT_EQ(result.output, "");
}

TEST(StrataProgram, PrintsHelpWithEveryCommand) {
  const auto result = strata({"--help"});
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_NE(result.output.find("doctor"), std::string::npos);
  EXPECT_EQ(strata({"doctor", "--help"}).exit_code, 0);
  EXPECT_EQ(strata({"--version"}).output.substr(0, 7), "strata ");
}

TEST(StrataProgram, EndsWithTwoWhenTheArgumentsAreWrong) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{},
                                                    {"docter"},
                                                    {"doctor", "--jason"},
                                                    {"--frobnicate"},
                                                    {"doctor", "surplus"},
                                                    {"doctor", "-x"}}) {
    const auto result = strata(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.errors;
    expect_one_line(result);
  }
}

TEST(StrataProgram, SaysAMistakeOnceForAllRanks) {
  const auto result =
      test::run_program({"env", "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                         "OMPI_MCA_rmaps_base_oversubscribe=1", STRATA_MPIEXEC, "-n", "3",
                         STRATA_PROGRAM, "doctor", "--jason"});
  EXPECT_EQ(result.exit_code, 2) << result.errors;
  const std::size_t first = result.errors.find("strata: unknown flag --jason");
  ASSERT_NE(first, std::string::npos) << result.errors;
  EXPECT_EQ(result.errors.find("strata: ", first + 1), std::string::npos) << result.errors;
}

TEST(StrataProgram, PrintsFindingsAsLinesAndAsJson) {
  const auto lines = strata({"doctor"});
  EXPECT_EQ(lines.exit_code, 0) << lines.errors;
  EXPECT_NE(lines.output.find("io_uring"), std::string::npos);
  const auto result = strata({"doctor", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const auto json = nlohmann::json::parse(result.output);
  EXPECT_GE(json["findings"].size(), 8u);
  for (const auto& finding : json["findings"]) {
    EXPECT_TRUE(finding["status"] == "good" || finding["status"] == "slow") << finding;
    EXPECT_TRUE(finding["fact"].is_string() && finding["advice"].is_string());
  }
}

TEST(StrataProgram, ExaminesSwapDirectoriesAndEndsWithOneWhenOneIsBroken) {
  const test::TemporaryDirectory directory;
  const auto good = strata({"doctor", "--swap", directory.path()});
  EXPECT_EQ(good.exit_code, 0) << good.output;
  EXPECT_NE(good.output.find("swap " + directory.path()), std::string::npos) << good.output;
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
  const auto broken =
      strata({"doctor", "--swap", directory.path() + "," + directory.path() + "/no"});
  EXPECT_EQ(broken.exit_code, 1);
  EXPECT_NE(broken.output.find("broken"), std::string::npos) << broken.output;
}

}  // namespace
}  // namespace strata
