#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "swap/io_engine.h"

namespace CLI {
class App;
}

namespace strata::cli {

enum class ResidencyChoice : std::uint8_t { kAuto, kNone };
enum class UpdateChoice : std::uint8_t { kLazy, kFused };
enum class Place : std::uint8_t { kAuto, kDram, kSwap };

/// Where each kind of state rests when the user decides by hand.
struct Placement {
  Place hi = Place::kAuto;
  Place lo = Place::kAuto;
  Place m = Place::kAuto;
  Place v = Place::kAuto;
  Place gradients = Place::kAuto;
  Place weights = Place::kAuto;  ///< of frozen parameters

  bool operator==(const Placement&) const = default;
};

/// How a model is laid out over memory and drives: the flags that `train` and `plan` share.
struct PlacementOptions {
  std::vector<std::filesystem::path> swap;     ///< directories; empty: everything must fit in DRAM
  std::optional<std::uint64_t> dram;           ///< bytes per rank; none: 0.8 of what is available
  std::optional<std::uint64_t> swap_capacity;  ///< bytes per rank; none: what the drives have free
  Dtype compute = Dtype::kBf16;                ///< bf16, fp32 or fp16
  ResidencyChoice residency = ResidencyChoice::kAuto;
  UpdateChoice update = UpdateChoice::kLazy;
  Placement place;
  Place activations = Place::kAuto;
  std::int64_t stage = 3;  ///< ZeRO stage as DeepSpeed numbers them
  IoEngineOptions::Kind io_engine = IoEngineOptions::Kind::kAuto;
  std::int64_t prefetch_depth = -1;  ///< blocks read ahead; -1: as many as memory allows
};

/// Declares the flags that also matter where nothing is trained: directories, budgets, how to
/// compute and read. `options` must outlive the parsing.
void add_streaming_flags(CLI::App& app, PlacementOptions& options);

/// Declares all flags; `options` must outlive the parsing.
void add_placement_flags(CLI::App& app, PlacementOptions& options);

/// Reads one "section=place" of --place into `placement`.
/// @throws UsageError naming the part that is not known
void parse_placement(const std::string& text, Placement& placement);

/// What the precision excludes; part of the check below. @throws UsageError
void check_precision(const PlacementOptions& options);

/// What can be refused without a model: swap directories that are not there, places that contradict
/// other flags. @throws UsageError
void check(const PlacementOptions& options);

}  // namespace strata::cli
