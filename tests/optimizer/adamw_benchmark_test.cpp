#include "optimizer/adamw_benchmark.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "core/error.h"

namespace strata {
namespace {

TEST(AdamWBenchmark, ReportsBytesCountedOnceAndNotMoreThanTheClockAllows) {
  constexpr int kRounds = 3;
  constexpr std::int64_t kNumel = 1 << 20;
  const auto start = std::chrono::steady_clock::now();
  const AdamWBenchmark result = measure_adamw({.threads = 1, .numel = kNumel, .rounds = kRounds});
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;

  EXPECT_NEAR(result.gigabytes_per_second * result.nanoseconds_per_parameter, 26.0, 1e-9);
  // Of three rounds two took at least the median.
  const auto two = 2.0 * kNumel * 1e-9;
  const double seconds = two * result.nanoseconds_per_parameter + two * 12 / result.memory.triad +
                         two * 8 / result.memory.scale + two * 4 / result.memory.sum;
  EXPECT_LE(seconds, wall.count());
  EXPECT_GT(result.nanoseconds_per_parameter, 0.0);
  EXPECT_DOUBLE_EQ(result.fraction(), result.gigabytes_per_second /
                                          std::max(result.memory.triad, result.memory.scale));
}

TEST(MemoryBenchmark, MeasuresTheLoopsAlone) {
  const MemoryBandwidth memory = measure_memory({.threads = 1, .numel = 1 << 20, .rounds = 1});
  for (const double bandwidth : {memory.triad, memory.scale, memory.sum}) {
    EXPECT_GT(bandwidth, 0.0);
    EXPECT_TRUE(std::isfinite(bandwidth));
  }
  EXPECT_EQ(memory.best_loop(), std::max(memory.triad, memory.scale));
}

TEST(MemoryBenchmark, RefusesOptionsOutOfRangeAndMemoryThatIsNotThere) {
  EXPECT_THROW(measure_memory({.threads = 0}), UsageError);
  EXPECT_THROW(measure_adamw({.numel = 0}), UsageError);
  EXPECT_THROW(measure_adamw({.rounds = -1}), UsageError);
  EXPECT_THROW(measure_memory({.numel = std::int64_t{1} << 62}), UsageError);
  EXPECT_THROW(measure_memory({.numel = std::int64_t{1} << 48}), Error);
}

}  // namespace
}  // namespace strata
