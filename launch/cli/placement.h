#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launch/cli/placement_options.h"
#include "launch/step_rates.h"
#include "parallel/generation_plan.h"
#include "parallel/memory_plan.h"
#include "parallel/trainer_options.h"
#include "swap/device_profile.h"
#include "swap/directory_facts.h"

namespace strata::cli {

/// What is known about one directory of --swap.
struct SwapDrive {
  std::string directory;
  std::optional<DirectoryFacts> facts;    ///< none: not to be had here, e.g. of another machine
  std::optional<DeviceProfile> profile;   ///< none: `strata bench io` has not measured it
  std::size_t directories_on_device = 1;  ///< of --swap, this one included: they share its speed
};

/// Looks at every directory of `options` and at the saved profiles; writes nothing that stays.
/// Directories that cannot be used have no facts: check() and the trainer refuse them.
/// @param warnings gets one line for each directory that swaps badly (tmpfs, no direct I/O) and one
/// for profiles that cannot be read
std::vector<SwapDrive> examine_swap(const PlacementOptions& options,
                                    std::vector<std::string>& warnings);

/// The rates of all drives together, for bytes that are spread over them in proportion to their
/// speed. None when one of them was not measured, or there are none.
std::optional<DeviceProfile> combined_profile(const std::vector<SwapDrive>& drives);

/// Free bytes of all drives together. None when a directory is not on this machine, or there are
/// none.
std::optional<std::uint64_t> free_swap_bytes(const std::vector<SwapDrive>& drives);

/// The saved figures of this machine and of these drives, for make_plan_report().
/// @param warnings gets one line when they cannot be read
RateInputs measured_rates(const std::vector<SwapDrive>& drives, std::vector<std::string>& warnings);

/// What --dram means when it is not given: 0.8 of the memory this machine has left, shared by the
/// ranks of the node.
std::uint64_t default_dram_bytes(int local_ranks);

/// The flags as the trainer takes them. Directories get weights in proportion to their measured
/// bandwidth; equal ones when they were not measured.
/// @param local_ranks ranks of this node, which share its memory and its drives
/// @param warnings as examine_swap()
PlacementRequest make_placement(const PlacementOptions& options, int local_ranks,
                                std::vector<std::string>& warnings);
/// The same from drives that were examined before.
PlacementRequest make_placement(const PlacementOptions& options, int local_ranks,
                                const std::vector<SwapDrive>& drives);

/// The same flags as the generator takes them: all but what it is planned for. Directories of
/// --swap hold copies of weights that cannot be read in place.
GeneratorOptions make_generator_options(const PlacementOptions& options, int local_ranks,
                                        const std::vector<SwapDrive>& drives);

/// The engine, with the block size and depth that `strata bench io --sweep` found best.
IoEngineOptions make_io_options(const PlacementOptions& options,
                                const std::vector<SwapDrive>& drives);

/// Refuses a plan that needs more swap than the drives have free,
/// counting all ranks of the node, before any file is made.
/// @throws UsageError with the numbers and what would help
void check_swap_room(const MemoryPlan& plan, const PlacementRequest& request, int local_ranks,
                     const std::vector<SwapDrive>& drives);

}  // namespace strata::cli
