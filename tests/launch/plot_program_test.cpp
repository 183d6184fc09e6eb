// `strata plot` as its users meet it.
#include <gtest/gtest.h>

#include "tests/support/run_program.h"
#include "tests/support/xml.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using test::ProgramResult;
using test::read_file;
using test::write_file;

class PlotProgram : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* run : {"one", "two"}) {
      write_file(
          directory_ / run / "metrics.jsonl",
          "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\n{\"step\":2,\"eval_loss\":2.5}\n");
    }
  }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  static ProgramResult plot(std::vector<std::string> words) {
    words.insert(words.begin(), {STRATA_PROGRAM, "plot"});
    return test::run_program(words);
  }
  void expect_refused(const std::vector<std::string>& words,
                      const std::vector<std::string>& parts) const {
    const ProgramResult result = plot(words);
    EXPECT_NE(result.exit_code, 0) << result.output;
    for (const std::string& part : parts) {
      EXPECT_NE(result.errors.find(part), std::string::npos) << part << ": " << result.errors;
    }
  }

  test::TemporaryDirectory directory_;
};

TEST_F(PlotProgram, DrawsRunsIntoOneFile) {
  const ProgramResult result = plot({path("one"), path("two"), "--out", path("both.svg")});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(result.output, "wrote " + path("both.svg") + "\n");
  EXPECT_EQ(test::parse_xml(read_file(directory_ / "both.svg")).name, "svg");
  EXPECT_EQ(plot({path("one"), "-o", path("both.svg")}).exit_code, 0);  // again, over it
}

TEST_F(PlotProgram, ReportsOnAFinishedRun) {
  const ProgramResult result = plot({path("one"), "--report"});
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(test::parse_xml(read_file(directory_ / "one/report.html")).name, "html");
}

TEST_F(PlotProgram, WarnsOfALineThatACrashCutShort) {
  write_file(directory_ / "cut/metrics.jsonl", "{\"step\":1,\"loss\":3}\n{\"step\":2,\"lo");
  const ProgramResult result = plot({path("cut"), "--out", path("cut.svg")});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(result.errors.find(path("cut/metrics.jsonl") + ":2"), std::string::npos)
      << result.errors;
}

TEST_F(PlotProgram, SaysWhatIsWrongAndWritesNothing) {
  expect_refused({}, {"DIR"});
  expect_refused({path("three")}, {"three", "does not exist"});
  expect_refused({directory_.path()}, {directory_.path(), "metrics.jsonl"});
  write_file(directory_ / "bad/metrics.jsonl", "{\"step\":1,\"loss\":3}\nstep 2\n");
  expect_refused({path("bad"), "--out", path("bad.svg")}, {"bad/metrics.jsonl:2: ", "JSON"});
  EXPECT_FALSE(fs::exists(directory_ / "bad.svg"));
  write_file(directory_ / "model.safetensors", "precious");
  expect_refused({path("one"), "--out", path("model.safetensors")}, {"--out", ".svg"});
  EXPECT_EQ(read_file(directory_ / "model.safetensors"), "precious");
  expect_refused({path("one"), path("two"), "--report"}, {"--report", "one"});
  expect_refused({path("one"), "--out", path("missing/plot.svg")}, {"missing/plot.svg"});
}

}  // namespace
}  // namespace strata
