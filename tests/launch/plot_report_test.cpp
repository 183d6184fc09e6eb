#include <gtest/gtest.h>

#include "core/error.h"
#include "launch/plot/report.h"
#include "launch/plot/summary.h"
#include "launch/run_record.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/xml.h"

namespace strata::plot {
namespace {

namespace fs = std::filesystem;

StepMetrics step(std::int64_t number, double seconds, const std::string& bound) {
  return {.step = number,
          .loss = 10.0 / static_cast<double>(number),
          .tokens = 1000,
          .seconds = seconds,
          .swap_bytes_read = 2'000'000'000,
          .swap_bytes_written = 1'000'000'000,
          .seconds_compute = seconds / 2,
          .seconds_read_wait = seconds / 4,
          .bound_by = bound,
          .bound_fraction = 0.75};
}

RunDescription description() {
  return {.plan = "a plan with <marks> & more\nbytes of a rank\n",
          .planned_step_seconds = 1.5,
          .planned_bound = "read",
          .settings = {{"--model", "model"}, {"--learning_rate", "1e-3"}},
          .drives = {{"nvme0n1", 0.07}, {"sda", std::nullopt}}};
}

TEST(RunSummary, AddsUpARun) {
  MetricsHistory history;
  for (int i = 1; i <= 40; ++i) {
    history.steps.push_back(step(i, i == 7 ? 9 : 1, i <= 10 ? "read" : "compute"));
  }
  history.steps[4].skipped = true;
  history.evaluations = {{.step = 10, .loss = 3}, {.step = 20, .loss = 2}, {.step = 40, .loss = 4}};
  const RunSummary summary = summarize(history);
  EXPECT_EQ(summary.steps, 40);
  EXPECT_EQ(summary.skipped, 1);
  EXPECT_EQ(summary.seconds, 48);
  EXPECT_EQ(summary.median_step_seconds, 1);
  EXPECT_EQ(summary.last_loss, 0.25);
  EXPECT_EQ(summary.recent_steps, 2);
  EXPECT_NEAR(summary.recent_loss, (10.0 / 39 + 0.25) / 2, 1e-12);
  EXPECT_EQ(summary.last_evaluation->loss, 4);
  EXPECT_EQ(summary.best_evaluation->step, 20);
  EXPECT_NEAR(summary.tokens_per_second(), 40'000.0 / 48, 1e-9);
  EXPECT_EQ(summary.swap_read, 80e9);
  ASSERT_EQ(summary.bounds.size(), 2u);
  EXPECT_EQ(summary.bounds[0].lane, "compute");
  EXPECT_EQ(summary.bounds[0].steps, 30);
  EXPECT_EQ(summary.bounds[1].fraction, 0.75);
  ASSERT_EQ(summary.slowest.size(), 5u);
  EXPECT_EQ(summary.slowest[0].step, 7);
  EXPECT_EQ(summary.lane_seconds[0], 24);
}

TEST(RunRecord, LeavesWhatAReportNeeds) {
  const test::TemporaryDirectory directory;
  {
    RunRecord record(directory.path(), directory / "curves/of/it", description());
    record.write(step(1, 1, "read"));
    record.write(EvaluationMetrics{.step = 1, .loss = 9, .tokens = 10});
  }
  int event_files = 0;
  for (const auto& entry : fs::directory_iterator(directory / "curves/of/it")) {
    event_files += entry.path().filename().string().starts_with("events.out.tfevents.") ? 1 : 0;
  }
  EXPECT_EQ(event_files, 1);
  std::vector<std::string> warnings;
  const std::vector<plot::Run> runs = read_runs({directory.path()}, warnings);
  EXPECT_EQ(runs.at(0).history.steps.size(), 1u);
  EXPECT_EQ(runs[0].history.evaluations.size(), 1u);
  const auto read = read_description(directory.path());
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->plan, description().plan);
  EXPECT_EQ(read->planned_step_seconds, 1.5);
  EXPECT_EQ(read->settings, description().settings);
  ASSERT_EQ(read->drives.size(), 2u);
  EXPECT_EQ(read->drives[0].wear, 0.07);
  EXPECT_FALSE(read->drives[1].wear.has_value());
}

TEST(RunFiles, NamesRunsByWhatTellsThemApart) {
  const test::TemporaryDirectory directory;
  for (const char* run : {"a/out", "b/out", "c"}) {
    test::write_file(directory / run / "metrics.jsonl", "{\"step\":1,\"loss\":2}\n");
  }
  std::vector<std::string> warnings;
  const auto runs = read_runs(
      {directory / "a/out", directory / "b/out/", directory / "c/metrics.jsonl"}, warnings);
  EXPECT_EQ(runs.at(0).name, (directory / "a/out").string());
  EXPECT_EQ(runs.at(1).name, (directory / "b/out/").string());
  EXPECT_EQ(runs.at(2).name, "c");
  EXPECT_EQ(read_runs({directory / "a/out/"}, warnings).at(0).name, "out");
}

TEST(RunFiles, SaysWhatIsWrongWithThem) {
  const test::TemporaryDirectory directory;
  std::vector<std::string> warnings;
  const auto refused = [&](const fs::path& path, const std::vector<std::string>& parts) {
    test::expect_message<Error>([&] { read_runs({path}, warnings); }, parts);
  };
  refused(directory / "nothing", {(directory / "nothing").string(), "does not exist"});
  refused(directory.path(), {directory.path(), "metrics.jsonl"});
  test::write_file(directory / "metrics.jsonl", "{\"step\":1,\"loss\":2}\n{\"step\":2}\n");
  refused(directory.path(), {(directory / "metrics.jsonl").string() + ":2: "});
  test::write_file(directory / "run.json", "{\"plan\": 3}");
  test::expect_message<FormatError>([&] { read_description(directory.path()); },
                                    {(directory / "run.json").string(), "\"plan\""});
  fs::create_directory(directory / "taken.svg");
  EXPECT_THROW(replace_file(directory / "taken.svg", "text"), IoError);
  EXPECT_THROW(replace_file(directory / "missing/plot.svg", "text"), IoError);
}

TEST(Report, IsOneWellFormedPageWithEverythingInIt) {
  plot::Run run{"run & <co>", {}};
  for (int i = 1; i <= 30; ++i)
    run.history.steps.push_back(step(i, 1, i % 3 == 0 ? "read" : "update"));
  run.history.evaluations = {{.step = 30, .loss = 4.5}};
  const std::string page = make_report(run, description());
  const test::XmlElement root = test::parse_xml(page);
  EXPECT_EQ(root.name, "html");
  EXPECT_EQ(root.all("h1").at(0)->text, "run & <co>");
  EXPECT_EQ(root.all("svg").size(), 1u);
  EXPECT_EQ(root.all("pre").at(0)->text, description().plan);
  EXPECT_TRUE(root.all("script").empty());
  for (const char* part : {"<b>4.5000</b>", "60 GB", "30 GB", "nvme0n1", "7% of its rated",
                           "--learning_rate", "planned to take 1.5 s, bound by read", "67%"}) {
    EXPECT_NE(page.find(part), std::string::npos) << part;
  }
}

TEST(Report, NeedsNoDescriptionAndNoSteps) {
  const std::string page = make_report(plot::Run{"empty", {}}, std::nullopt);
  EXPECT_NO_THROW(test::parse_xml(page));
  EXPECT_EQ(page.find("<h2>Plan"), std::string::npos);
  EXPECT_EQ(page.find("nan"), std::string::npos);
  EXPECT_NO_THROW(test::parse_xml(make_report(plot::Run{"empty", {}}, RunDescription{})));
}

}  // namespace
}  // namespace strata::plot
