#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "core/error.h"
#include "launch/generation_bench/energy.h"
#include "launch/generation_bench/prices.h"
#include "launch/generation_bench/throttled_engine.h"
#include "tests/support/files.h"
#include "tests/support/messages.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using std::chrono::milliseconds;

/// A package whose counter wraps after 10 J.
void set_counter(const test::TemporaryDirectory& root, const char* microjoules) {
  const auto zone = root / "sys/class/powercap/intel-rapl:0";
  test::write_file(zone / "name", "package-0\n");
  test::write_file(zone / "max_energy_range_uj", "10000000\n");
  // In one step, since the recorder may look at any time.
  test::write_file(zone / "next", microjoules);
  std::filesystem::rename(zone / "next", zone / "energy_uj");
}

TEST(EnergyRecorder, AddsUpCountersThatWrapBetweenItsLooks) {
  const test::TemporaryDirectory root;
  set_counter(root, "1000000");
  EnergyRecorder recorder({.interval = milliseconds(2), .root = root.path()});
  EXPECT_STREQ(recorder.source(), "RAPL");
  set_counter(root, "2000000");
  recorder.begin();
  // Twice around: a single look at the end would miss 10 J.
  for (const char* value : {"9000000", "4000000", "9500000", "3000000"}) {
    set_counter(root, value);
    std::this_thread::sleep_for(milliseconds(200));
  }
  const EnergyReading reading = recorder.end();
  ASSERT_TRUE(reading.joules.has_value()) << reading.missing;
  EXPECT_NEAR(*reading.joules, 7 + 5 + 5.5 + 3.5, 1e-9);
  recorder.begin();
  EXPECT_EQ(recorder.end().joules, 0.0);
}

TEST(EnergyRecorder, SaysWhyThereIsNothing) {
  const test::TemporaryDirectory root;
  EnergyRecorder recorder({.root = root.path()});
  recorder.begin();
  const EnergyReading reading = recorder.end();
  EXPECT_FALSE(reading.joules.has_value());
  EXPECT_NE(reading.missing.find("--power-command"), std::string::npos) << reading.missing;
}

TEST(EnergyRecorder, IntegratesThePowerThatACommandPrints) {
  EnergyRecorder recorder({.power_command = "echo 30 W; echo 12.5", .interval = milliseconds(20)});
  const auto before = std::chrono::steady_clock::now();
  recorder.begin();
  std::this_thread::sleep_for(milliseconds(150));
  const EnergyReading reading = recorder.end();
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - before;
  ASSERT_TRUE(reading.joules.has_value()) << reading.missing;
  EXPECT_GE(*reading.joules, 0.15 * 42.5);
  EXPECT_LE(*reading.joules, passed.count() * 42.5);
}

TEST(EnergyRecorder, HasNoReadingWhenOneLookFailed) {
  const test::TemporaryDirectory root;
  test::write_file(root / "watts", "10");
  EnergyRecorder recorder(
      {.power_command = "cat '" + (root / "watts").string() + "'", .interval = milliseconds(5)});
  recorder.begin();
  std::filesystem::remove(root / "watts");
  std::this_thread::sleep_for(milliseconds(50));
  test::write_file(root / "watts", "10");
  const EnergyReading reading = recorder.end();
  EXPECT_FALSE(reading.joules.has_value());
  EXPECT_NE(reading.missing.find("status 1"), std::string::npos) << reading.missing;
}

TEST(EnergyRecorder, MayBeDroppedWhileItRecords) {
  EnergyRecorder recorder({.power_command = "echo 1"});
  recorder.begin();
  EXPECT_THROW(recorder.begin(), Error);
}

TEST(ParseWatts, AddsLinesAndRefusesWhatIsNoPower) {
  EXPECT_DOUBLE_EQ(parse_watts("100.5\n\n 20 W\r\n3Watts"), 123.5);
  for (const char* text : {"", "\n", "a lot", "12 mW", "-3", "nan", "1 2"}) {
    EXPECT_THROW(parse_watts(text), Error) << text;
  }
}

TEST(Prices, AreOfTheSystemAndOfEachTier) {
  const test::TemporaryDirectory directory;
  const auto file = test::write_file(
      directory / "p.json", R"({"currency":"EUR","system":4000,"tiers":{"dram":900,"gen5":320}})");
  const Prices prices = read_prices(file);
  EXPECT_EQ(prices.currency, "EUR");
  EXPECT_EQ(prices.of("dram"), 4900);
  EXPECT_EQ(prices.of("gen5"), 4320);
  EXPECT_EQ(prices.of("gen4"), std::nullopt);
}

TEST(Prices, NameWhatIsWrongInTheirFile) {
  const test::TemporaryDirectory directory;
  const auto refused = [&](const char* text, const std::string& part) {
    const auto file = test::write_file(directory / "p.json", text);
    test::expect_message<FormatError>([&] { read_prices(file); }, {file.string(), part});
  };
  refused(R"({"currency":"EUR","tiers":{}})", "system is missing");
  refused(R"({"currency":"EUR","system":-1,"tiers":{}})", "system");
  refused(R"({"currency":"EUR","system":1,"tiers":{"dram":"x"}})", "tiers.dram");
  refused(R"({"currency":1,"system":1,"tiers":{}})", "currency");
  refused(R"({"currency":"EUR","system":1,"tiers":7})", "tiers");
  refused(R"({"currency":"EUR","system":1,"tiers":{},"drives":{}})", "\"drives\"");
  EXPECT_THROW(read_prices(directory / "none.json"), IoError);
}

/// Transfers that are done at once.
class InstantEngine final : public IoEngine {
 public:
  std::string name() const override { return "instant"; }
  IoFile open_file(int descriptor, std::string) override { return {descriptor, 0}; }
  void register_memory(std::span<std::byte>) override {}
  Event submit(std::span<const IoRequest> requests) override {
    submitted += requests.size();
    return {};
  }
  IoCounters counters() const override { return {.bytes_read = 7}; }

  std::size_t submitted = 0;
};

TEST(ThrottledEngine, MakesReadsAsSlowAsADriveWouldAndLeavesWritesAlone) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::byte> memory(100 << 10);
  IoRequest read;
  read.memory = memory;
  IoRequest write = read;
  write.kind = IoRequest::Kind::kWrite;
  const std::vector<IoRequest> reads(2, read);
  const std::vector<IoRequest> writes(1, write);
  auto real = std::make_unique<InstantEngine>();
  const InstantEngine& seen = *real;
  // 200 KiB take 100 ms.
  const auto engine = make_throttled_engine(std::move(real), 2000.0 * 1024);
  const auto begin = Clock::now();
  const Event first = engine->submit(reads);
  const Event second = engine->submit(reads);
  EXPECT_FALSE(first.ready());
  EXPECT_TRUE(engine->submit(writes).ready());
  first.wait();
  EXPECT_TRUE(first.ready());
  EXPECT_GE(Clock::now() - begin, milliseconds(100));
  EXPECT_FALSE(second.ready()) << "reads share the drive";
  second.wait();
  EXPECT_GE(Clock::now() - begin, milliseconds(200));
  EXPECT_EQ(seen.submitted, 5u);
  EXPECT_EQ(engine->counters().bytes_read, 7u);
  EXPECT_NE(engine->name().find("limited"), std::string::npos);
  EXPECT_THROW(make_throttled_engine(std::make_unique<InstantEngine>(), 0), Error);
}

}  // namespace
}  // namespace strata
