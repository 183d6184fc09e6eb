#include "launch/cli/placement.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/error.h"
#include "core/process.h"
#include "tests/support/temporary_directory.h"

namespace strata::cli {
namespace {

/// Profiles go to, and come from, a directory of the test's own.
class PlacementTest : public testing::Test {
 protected:
  PlacementTest() { setenv("XDG_CACHE_HOME", cache_.path().c_str(), 1); }
  ~PlacementTest() override { unsetenv("XDG_CACHE_HOME"); }

  static SwapDrive drive(const std::string& path, double mixed, std::size_t sharing) {
    SwapDrive drive{.directory = path, .facts = DirectoryFacts{}, .profile = {}};
    drive.facts->path = path;
    drive.facts->block_device = sharing > 1 ? "shared" : path;
    drive.directories_on_device = sharing;
    if (mixed > 0)
      drive.profile = {.read = mixed,
                       .write = mixed,
                       .mixed_read = mixed / 2,
                       .mixed_write = mixed / 2,
                       .block_bytes = 1 << 22,
                       .queue_depth = 16};
    return drive;
  }

  test::TemporaryDirectory cache_;
  test::TemporaryDirectory swap_;
  std::vector<std::string> warnings_;
};

TEST_F(PlacementTest, TakesEveryFlagOver) {
  PlacementOptions options;
  options.swap = {swap_.path()};
  options.dram = 123456789;
  options.swap_capacity = 987654321;
  options.compute = Dtype::kF32;
  options.residency = ResidencyChoice::kNone;
  options.update = UpdateChoice::kFused;
  options.place.m = Place::kDram;
  options.place.gradients = Place::kSwap;
  options.activations = Place::kSwap;
  options.stage = 2;
  options.prefetch_depth = 5;
  const PlacementRequest request = make_placement(options, 4, warnings_);
  ASSERT_EQ(request.swap.size(), 1u);
  EXPECT_EQ(request.swap[0].path, swap_.path());
  EXPECT_EQ(request.dram_bytes, 123456789u);
  EXPECT_EQ(request.swap_bytes, 987654321u);
  EXPECT_EQ(request.compute, Dtype::kF32);
  EXPECT_FALSE(request.residency);
  EXPECT_EQ(request.update, UpdateTiming::kFused);
  const auto placed = [&](Section section) {
    return request.sections[static_cast<std::size_t>(section)];
  };
  EXPECT_EQ(placed(Section::kM), strata::Place::kDram);
  EXPECT_EQ(placed(Section::kGradient), strata::Place::kSwap);
  EXPECT_EQ(placed(Section::kHi), strata::Place::kAuto);
  EXPECT_EQ(request.activations, strata::Place::kSwap);
  EXPECT_EQ(request.stage, 2);
  EXPECT_EQ(request.prefetch_depth, 5);
}

TEST_F(PlacementTest, SharesMostOfTheAvailableMemoryByDefault) {
  const auto available = static_cast<double>(available_memory_bytes());
  const auto one = static_cast<double>(*make_placement({}, 1, warnings_).dram_bytes);
  const auto four = static_cast<double>(*make_placement({}, 4, warnings_).dram_bytes);
  // Other processes come and go meanwhile.
  EXPECT_NEAR(one / available, 0.8, 0.1);
  EXPECT_NEAR(four / available, 0.2, 0.025);
}

TEST_F(PlacementTest, WeighsDirectoriesByTheirShareOfTheDrive) {
  const std::vector<SwapDrive> drives = {drive("a", 6e9, 1), drive("b", 4e9, 2),
                                         drive("c", 4e9, 2)};
  const PlacementRequest request = make_placement({}, 1, drives);
  ASSERT_EQ(request.swap.size(), 3u);
  EXPECT_EQ(request.swap[0].weight, 6e9);
  EXPECT_EQ(request.swap[1].weight, 2e9);
  EXPECT_EQ(request.swap[2].weight, 2e9);
  const auto together = combined_profile(drives);
  ASSERT_TRUE(together);
  EXPECT_EQ(together->read, 10e9);
  EXPECT_EQ(make_io_options({}, drives).block_bytes, std::size_t{1} << 22);
  EXPECT_EQ(make_io_options({}, drives).queue_depth, 16u);
}

TEST_F(PlacementTest, GivesUnmeasuredDirectoriesATypicalWeight) {
  const std::vector<SwapDrive> drives = {drive("a", 6e9, 1), drive("b", 0, 1)};
  EXPECT_EQ(make_placement({}, 1, drives).swap[1].weight, 6e9);
  EXPECT_FALSE(combined_profile(drives));
  EXPECT_FALSE(combined_profile({}));
}

TEST_F(PlacementTest, FindsTheSavedProfileOfADirectory) {
  PlacementOptions options;
  options.swap = {swap_.path(), "/there is no such directory"};
  std::vector<SwapDrive> drives = examine_swap(options, warnings_);
  ASSERT_EQ(drives.size(), 2u);
  ASSERT_TRUE(drives[0].facts);
  EXPECT_FALSE(drives[0].profile);
  EXPECT_FALSE(drives[1].facts);
  save_device_profile(device_profile_path(), device_key(*drives[0].facts),
                      {3e9, 2e9, 1.5e9, 1e9, 1 << 20, 32});
  drives = examine_swap(options, warnings_);
  ASSERT_TRUE(drives[0].profile);
  EXPECT_EQ(drives[0].profile->write, 2e9);
}

TEST_F(PlacementTest, WarnsOnceAboutADirectoryInMemory) {
  PlacementOptions options;
  options.swap = {"/dev/shm"};
  const std::vector<SwapDrive> drives = examine_swap(options, warnings_);
  if (!drives[0].facts || !drives[0].facts->is_tmpfs) GTEST_SKIP() << "/dev/shm is not a tmpfs";
  std::size_t about = 0;
  for (const std::string& warning : warnings_) {
    about += warning.find("is a tmpfs") != std::string::npos;
  }
  EXPECT_EQ(about, 1u);
}

TEST_F(PlacementTest, RefusesMoreSwapThanThereIs) {
  MemoryPlan plan;
  plan.swap_boundaries = 1000;  // swap_state() of no blocks is 0
  std::vector<SwapDrive> drives = {drive("b", 4e9, 2), drive("c", 4e9, 2)};
  for (SwapDrive& each : drives) each.facts->free_bytes = 2100;
  PlacementRequest request = make_placement({}, 1, drives);
  check_swap_room(plan, request, 2, drives);
  const auto message = [&](int ranks) -> std::string {
    try {
      check_swap_room(plan, request, ranks, drives);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "";
  };
  // Both directories lie on one drive: its free bytes count once.
  EXPECT_NE(message(3).find("--swap c: 3 ranks need 2.93 KiB there"), std::string::npos)
      << message(3);
  plan.swap_boundaries = 0;
  EXPECT_EQ(message(1), "");
}

}  // namespace
}  // namespace strata::cli
