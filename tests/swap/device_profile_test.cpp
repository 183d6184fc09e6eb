#include "swap/device_profile.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/error.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

constexpr DeviceProfile kDrive{.read = 7e9,
                               .write = 5e9,
                               .mixed_read = 3e9,
                               .mixed_write = 2e9,
                               .block_bytes = 1 << 20,
                               .queue_depth = 32};

TEST(DeviceProfile, TakesTheLargestOfTheThreeBounds) {
  EXPECT_DOUBLE_EQ(io_seconds(7e9, 0, kDrive), 1.0);
  EXPECT_DOUBLE_EQ(io_seconds(0, 5e9, kDrive), 1.0);
  EXPECT_DOUBLE_EQ(io_seconds(5e9, 5e9, kDrive), 2.0) << "the mixed bandwidth binds";
  EXPECT_DOUBLE_EQ(io_seconds(0, 0, DeviceProfile{}), 0.0);
  DeviceProfile duplex = kDrive;  // reads and writes do not disturb each other
  duplex.mixed_read = 7e9;
  duplex.mixed_write = 5e9;
  EXPECT_DOUBLE_EQ(io_seconds(7e9, 10e9, duplex), 2.0) << "the writes bind";
  EXPECT_THROW(io_seconds(1, 0, DeviceProfile{}), Error);
}

TEST(DeviceProfile, ComesBackFromItsFileBesideOthers) {
  const test::TemporaryDirectory directory;
  const fs::path file = fs::path(directory.path()) / "cache/strata/devices.json";
  DeviceProfile second = kDrive;
  second.read = 1.25e9;
  save_device_profile(file, "nvme0n1", kDrive);
  save_device_profile(file, "nvme1n1", second);
  save_device_profile(file, "nvme0n1", kDrive);
  const DeviceProfiles profiles = load_device_profiles(file);
  EXPECT_EQ(profiles.warning, "");
  ASSERT_EQ(profiles.by_device.size(), 2u);
  EXPECT_EQ(profiles.by_device.at("nvme1n1").read, 1.25e9);
  EXPECT_EQ(profiles.by_device.at("nvme0n1").mixed_write, kDrive.mixed_write);
  EXPECT_EQ(profiles.by_device.at("nvme0n1").block_bytes, kDrive.block_bytes);
  EXPECT_EQ(profiles.by_device.at("nvme0n1").queue_depth, kDrive.queue_depth);
  EXPECT_EQ(std::distance(fs::directory_iterator(file.parent_path()), {}), 1)
      << "a temporary file was left behind";
}

TEST(DeviceProfile, ReadsAMissingFileAsNoProfiles) {
  const DeviceProfiles profiles = load_device_profiles("/nonexistent/devices.json");
  EXPECT_TRUE(profiles.by_device.empty());
  EXPECT_EQ(profiles.warning, "");
}

TEST(DeviceProfile, WarnsOfADamagedFileAndReplacesIt) {
  const test::TemporaryDirectory directory;
  const std::string file = directory.path() + "/devices.json";
  for (const char* damage : {"", "{", "[]", "{\"sda\": 3}", "{\"sda\": {\"read\": -1}}",
                             "{\"sda\": {\"read\": 1, \"write\": \"x\"}}", "\xff\xfe"}) {
    std::ofstream(file, std::ios::trunc) << damage;
    const DeviceProfiles profiles = load_device_profiles(file);
    EXPECT_TRUE(profiles.by_device.empty()) << damage;
    EXPECT_EQ(profiles.warning.find(file), 0u) << damage;
  }
  save_device_profile(file, "sda", kDrive);
  EXPECT_EQ(load_device_profiles(file).by_device.size(), 1u);
}

TEST(DeviceProfile, NamesTheFileThatCannotBeWritten) {
  const test::TemporaryDirectory directory;
  const std::string blocker = directory.path() + "/file";
  std::ofstream(blocker) << "x";
  try {
    save_device_profile(blocker + "/devices.json", "sda", kDrive);
    FAIL() << "a file was taken for a directory";
  } catch (const IoError& error) {
    EXPECT_EQ(error.path(), blocker + "/devices.json");
  }
}

TEST(DeviceProfile, LiesInTheCacheDirectory) {
  setenv("XDG_CACHE_HOME", "/cache", 1);
  EXPECT_EQ(device_profile_path(), "/cache/strata/devices.json");
  unsetenv("XDG_CACHE_HOME");
  setenv("HOME", "/home/me", 1);
  EXPECT_EQ(device_profile_path(), "/home/me/.cache/strata/devices.json");
}

TEST(DeviceProfile, IsFiledUnderTheDriveOrElseTheDirectory) {
  DirectoryFacts facts;
  facts.path = "/mnt/swap";
  EXPECT_EQ(device_key(facts), "/mnt/swap");
  facts.block_device = "nvme0n1";
  EXPECT_EQ(device_key(facts), "nvme0n1");
}

}  // namespace
}  // namespace strata
