#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/metrics.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

MetricsHistory parse(std::string_view text) {
  std::vector<std::string> warnings;
  MetricsHistory history = parse_metrics(text, "m.jsonl", warnings);
  EXPECT_TRUE(warnings.empty()) << warnings.front();
  return history;
}

void expect_refused(std::string_view text, const std::vector<std::string>& parts) {
  test::expect_message<FormatError>([&] { parse(text); }, parts);
}

TEST(MetricsReader, ReadsBackWhatTheWriterWrote) {
  const test::TemporaryDirectory directory;
  const std::string path = (directory / "metrics.jsonl").string();
  StepMetrics step{.step = 7,
                   .loss = 0.1,
                   .grad_norm = 1.0 / 3,
                   .tokens = 1 << 20,
                   .swap_bytes_read = 5'000'000'000,
                   .bound_by = "update",
                   .rss_peak_bytes = ~std::uint64_t{0},
                   .energy_joules = 4.5,
                   .skipped = true,
                   .skipped_steps = 3,
                   .loss_scale = 32768.0};
  const EvaluationMetrics evaluation{.step = 7, .loss = 2.25, .tokens = 99};
  {
    MetricsWriter writer(path);
    writer.write(step);
    writer.write(evaluation);
  }
  std::vector<std::string> warnings;
  const MetricsHistory history = read_metrics(path, warnings);
  ASSERT_EQ(history.steps.size(), 1u);
  ASSERT_EQ(history.evaluations.size(), 1u);
  EXPECT_EQ(to_json_line(history.steps[0]), to_json_line(step));
  EXPECT_EQ(to_json_line(history.evaluations[0]), to_json_line(evaluation));
}

TEST(MetricsReader, TakesNullForWhatIsNotANumber) {
  const MetricsHistory history =
      parse("{\"step\":1,\"loss\":null,\"grad_norm\":null,\"energy_joules\":null}\n");
  EXPECT_TRUE(std::isnan(history.steps.at(0).loss));
  EXPECT_TRUE(std::isnan(history.steps[0].grad_norm));
  EXPECT_FALSE(history.steps[0].energy_joules.has_value());
}

TEST(MetricsReader, TakesRowsThatKnowLittleOrMore) {
  const MetricsHistory history =
      parse("{\"loss\": 2, \"epoch\": 0.5, \"step\": 10}\r\n\n{\"eval_loss\":3,\"step\":10}");
  EXPECT_EQ(history.steps.at(0).step, 10);
  EXPECT_EQ(history.steps[0].loss, 2);
  EXPECT_EQ(history.evaluations.at(0).loss, 3);
  EXPECT_TRUE(parse("").steps.empty());
}

TEST(MetricsReader, KeepsTheLastAttemptAtAStep) {
  const MetricsHistory history = parse(
      "{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":2}\n{\"step\":2,\"eval_loss\":2}\n"
      "{\"step\":3,\"loss\":3}\n{\"step\":3,\"eval_loss\":3}\n{\"step\":3,\"loss\":30}\n");
  ASSERT_EQ(history.steps.size(), 3u);
  EXPECT_EQ(history.steps[2].loss, 30);
  ASSERT_EQ(history.evaluations.size(), 1u);
  EXPECT_EQ(history.evaluations[0].step, 2);
}

TEST(MetricsReader, LeavesOutALastLineThatACrashCutShort) {
  const std::string whole = "{\"step\":1,\"loss\":1}\n";
  for (std::size_t length = 1; length + 2 < whole.size(); ++length) {
    std::vector<std::string> warnings;
    const MetricsHistory history =
        parse_metrics(whole + whole.substr(0, length), "m.jsonl", warnings);
    EXPECT_EQ(history.steps.size(), 1u);
    ASSERT_EQ(warnings.size(), 1u) << length;
    EXPECT_EQ(warnings[0].rfind("m.jsonl:2: ", 0), 0u) << warnings[0];
    EXPECT_NE(warnings[0].find("cut short"), std::string::npos);
  }
}

TEST(MetricsReader, NamesFileLineAndFieldOfABadRow) {
  const std::string good = "{\"step\":1,\"loss\":1}\n";
  expect_refused(good + "{\"step\":2,\"lo\n" + good, {"m.jsonl:2: ", "not valid JSON"});
  expect_refused(good + "\n[1]\n", {"m.jsonl:3: ", "object"});
  expect_refused("{\"loss\":1}\n", {"m.jsonl:1: ", "\"step\""});
  expect_refused("{\"step\":1}\n", {"m.jsonl:1: ", "\"loss\"", "\"eval_loss\""});
  expect_refused("{\"step\":-1,\"loss\":1}\n", {"m.jsonl:1: ", "\"step\"", "-1"});
  expect_refused("{\"step\":1.5,\"loss\":1}\n", {"m.jsonl:1: ", "\"step\"", "1.5"});
  expect_refused("{\"step\":9007199254740993,\"loss\":1}\n", {"m.jsonl:1: ", "too many"});
  expect_refused("{\"step\":18446744073709551615,\"loss\":1}\n", {"m.jsonl:1: ", "\"step\""});
  expect_refused("{\"step\":1,\"loss\":\"2\"}\n", {"m.jsonl:1: ", "\"loss\"", "\"2\""});
  expect_refused("{\"step\":1,\"loss\":1e999}\n", {"m.jsonl:1: "});
  expect_refused("{\"step\":1,\"loss\":1,\"skipped\":1}\n", {"m.jsonl:1: ", "\"skipped\""});
  expect_refused("{\"step\":1,\"loss\":1,\"bound_by\":2}\n", {"m.jsonl:1: ", "\"bound_by\""});
  expect_refused("{\"step\":1,\"loss\":1,\"loss\":2}\n", {"m.jsonl:1: ", "twice"});
}

}  // namespace
}  // namespace strata
