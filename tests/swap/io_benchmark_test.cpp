#include "swap/io_benchmark.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "core/error.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

class IoBenchmarkTest : public testing::Test {
 protected:
  static IoLoad short_load(IoLoad::Kind kind) {
    IoLoad load;
    load.kind = kind;
    load.seconds = 0.2;
    load.engine = {.queue_depth = 8, .block_bytes = 256 * 1024};
    return load;
  }
  test::TemporaryDirectory directory_;
  IoBenchmark benchmark_{directory_.path(), 32 << 20};
};

TEST_F(IoBenchmarkTest, MeasuresOneDirectionOnlyWhenAskedForOne) {
  const IoBandwidth read = benchmark_.measure(short_load(IoLoad::Kind::kRead));
  EXPECT_GT(read.read, 0.0);
  EXPECT_EQ(read.write, 0.0);
  const IoBandwidth write = benchmark_.measure(short_load(IoLoad::Kind::kWrite));
  EXPECT_EQ(write.read, 0.0);
  EXPECT_GT(write.write, 0.0);
}

TEST_F(IoBenchmarkTest, MixesInTheRatioAskedFor) {
  IoLoad load = short_load(IoLoad::Kind::kMixed);
  load.read_share = 3;
  load.write_share = 1;
  load.seconds = 0.5;
  const IoBandwidth mixed = benchmark_.measure(load);
  EXPECT_NEAR(mixed.read / mixed.sum(), 0.75, 0.1);
}

TEST_F(IoBenchmarkTest, LeavesNothingInTheDirectory) {
  benchmark_.measure(short_load(IoLoad::Kind::kRead));
  EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
}

TEST_F(IoBenchmarkTest, SweepsEveryCombination) {
  IoLoad load = short_load(IoLoad::Kind::kRead);
  load.seconds = 0.02;
  const std::vector<std::size_t> blocks{64 << 10, 1 << 20};
  const std::vector<unsigned> depths{1, 4};
  const std::vector<IoEngineOptions::Kind> engines{IoEngineOptions::Kind::kThreads,
                                                   IoEngineOptions::Kind::kAuto};
  const auto points = benchmark_.sweep(load, blocks, depths, engines);
  ASSERT_EQ(points.size(), 8u);
  for (const IoSweepPoint& point : points) EXPECT_GT(point.bandwidth.read, 0.0);
  EXPECT_EQ(points[3].load.engine.block_bytes, 1u << 20);
  EXPECT_EQ(points[3].load.engine.queue_depth, 4u);
}

TEST_F(IoBenchmarkTest, FillsAProfile) {
  const IoLoad load = short_load(IoLoad::Kind::kRead);
  const DeviceProfile profile = benchmark_.profile(load);
  EXPECT_GT(io_seconds(1e9, 1e9, profile), 0.0);
  EXPECT_EQ(profile.block_bytes, load.engine.block_bytes);
  EXPECT_EQ(profile.queue_depth, load.engine.queue_depth);
}

TEST_F(IoBenchmarkTest, StandsBesideFio) {
  const IoComparison comparison = benchmark_.compare_with_fio(short_load(IoLoad::Kind::kMixed), 1);
  if (!comparison.fio) GTEST_SKIP() << "fio is not installed here";
  EXPECT_GT(comparison.fio->read, 0.0);
  EXPECT_GT(comparison.fio->write, 0.0);
  EXPECT_GT(comparison.fraction(), 0.0);
}

TEST_F(IoBenchmarkTest, DoesWithoutFio) {
  const std::string path = getenv("PATH");
  setenv("PATH", directory_.path().c_str(), 1);
  const auto fio = benchmark_.measure_fio(short_load(IoLoad::Kind::kRead));
  setenv("PATH", path.c_str(), 1);
  EXPECT_FALSE(fio.has_value());
}

TEST_F(IoBenchmarkTest, RefusesABlockLargerThanItsFile) {
  IoLoad load = short_load(IoLoad::Kind::kRead);
  load.engine.block_bytes = 64 << 20;
  EXPECT_THROW(benchmark_.measure(load), Error);
}

}  // namespace
}  // namespace strata
