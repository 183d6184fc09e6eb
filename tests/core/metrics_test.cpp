#include "core/metrics.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

TEST(Metrics, HasEveryKeyOfAStepInOrder) {
  StepMetrics metrics;
  metrics.step = 3;
  metrics.loss = 2.5;
  metrics.bound_by = "read";
  metrics.energy_joules = 12.5;
  const auto line = nlohmann::ordered_json::parse(to_json_line(metrics));
  std::vector<std::string> keys;
  for (const auto& entry : line.items()) keys.push_back(entry.key());
  EXPECT_EQ(keys, (std::vector<std::string>{"step",
                                            "loss",
                                            "grad_norm",
                                            "learning_rate",
                                            "tokens",
                                            "seconds",
                                            "tokens_per_second",
                                            "mfu",
                                            "swap_bytes_read",
                                            "swap_bytes_written",
                                            "seconds_compute",
                                            "seconds_read_wait",
                                            "seconds_write_wait",
                                            "seconds_update",
                                            "seconds_collective",
                                            "seconds_save_wait",
                                            "bound_by",
                                            "bound_fraction",
                                            "rss_peak_bytes",
                                            "energy_joules",
                                            "skipped",
                                            "skipped_steps",
                                            "loss_scale"}));
  EXPECT_EQ(line["step"], 3);
  EXPECT_EQ(line["loss"], 2.5);
  EXPECT_EQ(line["bound_by"], "read");
  EXPECT_EQ(line["energy_joules"], 12.5);
  EXPECT_EQ(line["skipped"], false);
}

TEST(Metrics, WritesNullForWhatIsUnknownOrNotANumber) {
  StepMetrics metrics;
  metrics.loss = std::numeric_limits<double>::quiet_NaN();
  metrics.grad_norm = std::numeric_limits<double>::infinity();
  const auto line = nlohmann::json::parse(to_json_line(metrics));
  EXPECT_TRUE(line["loss"].is_null());
  EXPECT_TRUE(line["grad_norm"].is_null());
  EXPECT_TRUE(line["energy_joules"].is_null());
  EXPECT_TRUE(line["loss_scale"].is_null()) << "losses are scaled with fp16 only";
}

TEST(Metrics, NamesAnEvaluationAsHuggingFaceDoes) {
  EXPECT_EQ(to_json_line(EvaluationMetrics{.step = 4, .loss = 2.5, .tokens = 100}),
            R"({"step":4,"eval_loss":2.5,"eval_tokens":100})");
}

TEST(MetricsWriter, WritesALineThatCanBeReadAtOnce) {
  const test::TemporaryDirectory directory;
  const std::string path = (directory / "metrics.jsonl").string();
  test::write_file(path, "old\n");
  MetricsWriter writer(path);
  writer.write(StepMetrics{.bound_by = "write"});
  EXPECT_EQ(test::read_file(path), to_json_line(StepMetrics{.bound_by = "write"}) + "\n");
  writer.write(StepMetrics{.step = 2, .loss = 1});
  EXPECT_EQ(test::read_file(path), to_json_line(StepMetrics{.bound_by = "write"}) + "\n" +
                                       to_json_line(StepMetrics{.step = 2, .loss = 1}) + "\n");
}

TEST(MetricsWriter, NamesTheFileItCannotWrite) {
  const test::TemporaryDirectory directory;
  EXPECT_THROW(MetricsWriter((directory / "missing/metrics.jsonl").string()), IoError);
  MetricsWriter full("/dev/full");
  EXPECT_THROW(full.write(StepMetrics{}), IoError);
}

}  // namespace
}  // namespace strata
