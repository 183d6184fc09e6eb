#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>

#include "swap/directory_facts.h"

namespace strata {

/// What a drive was measured to do, in bytes per second.
struct DeviceProfile {
  double read = 0;        ///< alone
  double write = 0;       ///< alone
  double mixed_read = 0;  ///< both at once, at the ratio of a training step
  double mixed_write = 0;
  std::size_t block_bytes = 0;  ///< the shape of the transfers that were measured
  unsigned queue_depth = 0;
};

/// Seconds a drive needs: max(R / B_read, W / B_write, (R + W) / B_mixed) with B_mixed the sum of
/// both directions. Drives differ in how far reads and writes overlap; B_mixed is where that shows.
/// @pre every bandwidth that is needed is positive
double io_seconds(double read_bytes, double write_bytes, const DeviceProfile& profile);

/// What profiles are filed under: the block device, or the directory where there is none.
std::string device_key(const DirectoryFacts& directory);

struct DeviceProfiles {
  std::map<std::string, DeviceProfile> by_device;
  std::string warning;  ///< why the file could not be used; empty also when there is none yet
};

/// ${XDG_CACHE_HOME:-$HOME/.cache}/strata/devices.json. @throws UsageError if neither is set
std::filesystem::path device_profile_path();
/// Never fails: a file that is missing or damaged holds no profiles.
DeviceProfiles load_device_profiles(const std::filesystem::path& file);
/// Adds or replaces one profile; a crash leaves the old file or the new one. A damaged file is
/// replaced.
/// @throws IoError naming the file
void save_device_profile(const std::filesystem::path& file, const std::string& device,
                         const DeviceProfile& profile);

}  // namespace strata
