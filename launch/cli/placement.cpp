#include "launch/cli/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/process.h"
#include "core/units.h"
#include "swap/scratch_file.h"

namespace strata::cli {
namespace {

constexpr double kDramShare = 0.8;
/// A scratch file leaves this part of a drive free.
constexpr double kSwapHeadroom = 1.05;

strata::Place to_engine(Place place) {
  switch (place) {
    case Place::kDram:
      return strata::Place::kDram;
    case Place::kSwap:
      return strata::Place::kSwap;
    case Place::kAuto:
      break;
  }
  return strata::Place::kAuto;
}

SwapDrive examine_directory(const std::string& directory, const DeviceProfiles& profiles,
                            std::vector<std::string>& warnings) {
  SwapDrive drive{.directory = directory, .facts = {}, .profile = {}};
  try {
    const ScratchFile empty(directory, 0);
    warnings.insert(warnings.end(), empty.warnings().begin(), empty.warnings().end());
    drive.facts = probe_directory(directory);
  } catch (const UsageError&) {
    return drive;
  }
  const auto found = profiles.by_device.find(device_key(*drive.facts));
  if (found != profiles.by_device.end()) drive.profile = found->second;
  return drive;
}

/// Bytes per second of one directory at the ratio of a step.
double speed(const SwapDrive& drive) {
  return (drive.profile->mixed_read + drive.profile->mixed_write) /
         static_cast<double>(drive.directories_on_device);
}

std::vector<SwapDirectory> weighted(const std::vector<SwapDrive>& drives) {
  double sum = 0;
  int measured = 0;
  for (const SwapDrive& drive : drives) {
    if (!drive.profile) continue;
    sum += speed(drive);
    ++measured;
  }
  const double typical = measured > 0 ? sum / measured : 1.0;
  std::vector<SwapDirectory> directories;
  for (const SwapDrive& drive : drives) {
    directories.push_back({drive.directory, drive.profile ? speed(drive) : typical});
  }
  return directories;
}

DeviceProfiles saved_profiles() {
  try {
    return load_device_profiles(device_profile_path());
  } catch (const UsageError&) {  // no place to keep them: nothing was measured
    return {};
  }
}

}  // namespace

std::vector<SwapDrive> examine_swap(const PlacementOptions& options,
                                    std::vector<std::string>& warnings) {
  std::vector<SwapDrive> drives;
  if (options.swap.empty()) return drives;
  const DeviceProfiles profiles = saved_profiles();
  if (!profiles.warning.empty()) warnings.push_back(profiles.warning);
  std::map<std::string, std::size_t> on_device;
  for (const auto& path : options.swap) {
    drives.push_back(examine_directory(path.string(), profiles, warnings));
    if (drives.back().facts) ++on_device[device_key(*drives.back().facts)];
  }
  for (SwapDrive& drive : drives) {
    if (drive.facts) drive.directories_on_device = on_device[device_key(*drive.facts)];
  }
  return drives;
}

std::optional<DeviceProfile> combined_profile(const std::vector<SwapDrive>& drives) {
  if (drives.empty()) return std::nullopt;
  DeviceProfile sum;
  for (const SwapDrive& drive : drives) {
    if (!drive.profile) return std::nullopt;
    const auto parts = static_cast<double>(drive.directories_on_device);
    sum.read += drive.profile->read / parts;
    sum.write += drive.profile->write / parts;
    sum.mixed_read += drive.profile->mixed_read / parts;
    sum.mixed_write += drive.profile->mixed_write / parts;
    sum.block_bytes = std::max(sum.block_bytes, drive.profile->block_bytes);
    sum.queue_depth = std::max(sum.queue_depth, drive.profile->queue_depth);
  }
  return sum;
}

std::optional<std::uint64_t> free_swap_bytes(const std::vector<SwapDrive>& drives) {
  if (drives.empty()) return std::nullopt;
  std::map<std::string, std::uint64_t> by_device;
  for (const SwapDrive& drive : drives) {
    if (!drive.facts) return std::nullopt;
    by_device[device_key(*drive.facts)] = drive.facts->free_bytes;
  }
  std::uint64_t sum = 0;
  for (const auto& [device, bytes] : by_device) sum += bytes;
  return sum;
}

RateInputs measured_rates(const std::vector<SwapDrive>& drives,
                          std::vector<std::string>& warnings) {
  RateInputs rates;
  rates.drive = combined_profile(drives);
  try {
    const LoadedMachineProfile loaded = load_machine_profile(machine_profile_path());
    if (!loaded.warning.empty()) warnings.push_back(loaded.warning);
    rates.machine = loaded.profile;
  } catch (const UsageError&) {  // no place to keep them: nothing was measured
  }
  return rates;
}

std::uint64_t default_dram_bytes(int local_ranks) {
  const auto available = static_cast<double>(available_memory_bytes());
  return static_cast<std::uint64_t>(kDramShare * available / std::max(1, local_ranks));
}

PlacementRequest make_placement(const PlacementOptions& options, int local_ranks,
                                std::vector<std::string>& warnings) {
  return make_placement(options, local_ranks, examine_swap(options, warnings));
}

PlacementRequest make_placement(const PlacementOptions& options, int local_ranks,
                                const std::vector<SwapDrive>& drives) {
  PlacementRequest request;
  request.swap = weighted(drives);
  request.dram_bytes = options.dram ? *options.dram : default_dram_bytes(local_ranks);
  request.swap_bytes = options.swap_capacity;
  request.compute = options.compute;
  request.residency = options.residency == ResidencyChoice::kAuto;
  const auto place = [&request](Section section, Place chosen) {
    request.sections[static_cast<std::size_t>(section)] = to_engine(chosen);
  };
  place(Section::kHi, options.place.hi);
  place(Section::kLo, options.place.lo);
  place(Section::kM, options.place.m);
  place(Section::kV, options.place.v);
  place(Section::kGradient, options.place.gradients);
  place(Section::kWeights, options.place.weights);
  request.activations = to_engine(options.activations);
  request.update =
      options.update == UpdateChoice::kLazy ? UpdateTiming::kLazy : UpdateTiming::kFused;
  request.stage = static_cast<int>(options.stage);
  request.prefetch_depth = static_cast<int>(options.prefetch_depth);
  return request;
}

GeneratorOptions make_generator_options(const PlacementOptions& options, int local_ranks,
                                        const std::vector<SwapDrive>& drives) {
  const PlacementRequest placement = make_placement(options, local_ranks, drives);
  GeneratorOptions result;
  result.compute = options.compute;
  result.weights = options.compute;
  result.dram_bytes = placement.dram_bytes;
  result.residency = placement.residency;
  if (options.prefetch_depth >= 0) {
    result.prefetch_depth = static_cast<int>(options.prefetch_depth);
  }
  result.swap = placement.swap;
  result.io = make_io_options(options, drives);
  return result;
}

IoEngineOptions make_io_options(const PlacementOptions& options,
                                const std::vector<SwapDrive>& drives) {
  IoEngineOptions io;
  io.kind = options.io_engine;
  const std::optional<DeviceProfile> profile = combined_profile(drives);
  if (profile && profile->block_bytes > 0 && profile->queue_depth > 0) {
    io.block_bytes = profile->block_bytes;
    io.queue_depth = profile->queue_depth;
  }
  return io;
}

void check_swap_room(const MemoryPlan& plan, const PlacementRequest& request, int local_ranks,
                     const std::vector<SwapDrive>& drives) {
  const std::uint64_t needed = plan.swap();
  if (needed == 0) return;
  double weights = 0;
  for (const SwapDirectory& directory : request.swap) weights += directory.weight;
  // Directories of one drive draw on the same free bytes.
  std::map<std::string, double> needs;
  for (std::size_t i = 0; i < drives.size() && i < request.swap.size(); ++i) {
    if (!drives[i].facts) continue;
    double& need = needs[device_key(*drives[i].facts)];
    need += static_cast<double>(needed) * local_ranks * request.swap[i].weight / weights;
    if (need * kSwapHeadroom <= static_cast<double>(drives[i].facts->free_bytes)) continue;
    throw UsageError(fmt::format(
        "--swap {}: {} {} need {} there, with 5% to stay free, and {} are free; make room, add a "
        "directory on another drive, or give Strata more --dram",
        drives[i].directory, local_ranks, local_ranks == 1 ? "rank" : "ranks",
        format_bytes(static_cast<std::uint64_t>(need)), format_bytes(drives[i].facts->free_bytes)));
  }
}

}  // namespace strata::cli
