#include "core/trace.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <thread>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

nlohmann::json written(std::span<const std::vector<std::byte>> ranks) {
  const test::TemporaryDirectory directory;
  const std::string path = (directory / "trace.json").string();
  write_trace(path, ranks);
  return nlohmann::json::parse(test::read_file(path));
}

TEST(Trace, HasAProcessPerRankAndAThreadPerLane) {
  Trace first(true);
  Trace second(true);
  first.add(TraceLane::kRead, "read extent", 1000, 3500, 2, 4096);
  second.add(TraceLane::kCompute, "forward", 2000, 4000, 1);
  const std::vector<std::vector<std::byte>> ranks = {first.to_bytes(), second.to_bytes()};
  const auto file = written(ranks);
  std::map<int, std::set<std::string>> lanes;
  std::map<int, std::string> processes;
  int spans = 0;
  for (const auto& event : file["traceEvents"]) {
    if (event["name"] == "process_name") processes[event["pid"]] = event["args"]["name"];
    if (event["name"] == "thread_name") lanes[event["pid"]].insert(event["args"]["name"]);
    if (event["ph"] == "X") ++spans;
  }
  EXPECT_EQ(processes, (std::map<int, std::string>{{0, "rank 0"}, {1, "rank 1"}}));
  const std::set<std::string> all = {"step", "read",        "write",  "update",
                                     "copy", "collectives", "compute"};
  EXPECT_EQ(lanes[0], all);
  EXPECT_EQ(lanes[1], all);
  EXPECT_EQ(spans, 2);
}

TEST(Trace, WritesDurationsAndArguments) {
  Trace trace(true);
  const std::uint64_t now = Trace::now_ns();
  trace.add(TraceLane::kWrite, "a \"quoted\" name", now, now + 2500, 7, 4096);
  const std::vector<std::vector<std::byte>> ranks = {trace.to_bytes()};
  const auto file = written(ranks);
  bool span = false;
  for (const auto& event : file["traceEvents"]) {
    if (event["ph"] == "X") {
      span = true;
      EXPECT_EQ(event["name"], "a \"quoted\" name");
      EXPECT_DOUBLE_EQ(event["dur"], 2.5);
      EXPECT_EQ(event["args"]["block"], 7);
      EXPECT_EQ(event["args"]["bytes"], 4096);
      EXPECT_EQ(event["tid"], static_cast<int>(TraceLane::kWrite));
    }
  }
  EXPECT_TRUE(span);
}

TEST(Trace, PutsRanksOfOneMachineOnOneClock) {
  Trace first(true);
  Trace second(true);
  first.set_origin();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  second.set_origin();
  const std::uint64_t now = Trace::now_ns();
  first.add(TraceLane::kCompute, "same moment", now, now + 1);
  second.add(TraceLane::kCompute, "same moment", now, now + 1);
  const std::vector<std::vector<std::byte>> ranks = {first.to_bytes(), second.to_bytes()};
  std::set<double> starts;
  const auto file = written(ranks);
  for (const auto& event : file["traceEvents"]) {
    if (event["ph"] == "X") starts.insert(event["ts"].get<double>());
  }
  ASSERT_EQ(starts.size(), 1u);
  EXPECT_GE(*starts.begin(), 2000.0) << "zero is the origin of the first rank";
}

TEST(Trace, RecordsSpansFromSeveralThreads) {
  Trace trace(true);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&trace, i] {
      for (int j = 0; j < 100; ++j) const Trace::Span span(trace, TraceLane::kUpdate, "update", i);
    });
  }
  threads.clear();
  const std::vector<std::vector<std::byte>> ranks = {trace.to_bytes()};
  int spans = 0;
  const auto file = written(ranks);
  for (const auto& event : file["traceEvents"]) spans += event["ph"] == "X" ? 1 : 0;
  EXPECT_EQ(spans, 400);
}

TEST(Trace, CountsWhatItHasNoRoomFor) {
  Trace trace(true, 3);
  for (int i = 0; i < 5; ++i) trace.add(TraceLane::kCopy, "copy", 0, 1);
  const std::vector<std::vector<std::byte>> ranks = {trace.to_bytes()};
  EXPECT_EQ(written(ranks)["otherData"]["dropped_events"], 2);
}

TEST(Trace, KeepsNothingWhenItIsOff) {
  Trace trace(false);
  trace.add(TraceLane::kCopy, "copy", 0, 1);
  { const Trace::Span span(trace, TraceLane::kRead, "read"); }
  EXPECT_EQ(trace.to_bytes().size(), Trace(true).to_bytes().size());
}

TEST(Trace, RefusesDamagedBytesAndPathsItCannotWrite) {
  Trace trace(true);
  trace.add(TraceLane::kCopy, "copy", 0, 1);
  std::vector<std::vector<std::byte>> ranks = {trace.to_bytes()};
  EXPECT_THROW(write_trace("/dev/full", ranks), IoError);
  EXPECT_THROW(write_trace("/nowhere/trace.json", ranks), IoError);
  ranks[0].pop_back();
  const test::TemporaryDirectory directory;
  EXPECT_THROW(write_trace((directory / "trace.json").string(), ranks), FormatError);
  EXPECT_FALSE(std::filesystem::exists(directory / "trace.json"));
}

}  // namespace
}  // namespace strata
