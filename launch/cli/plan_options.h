#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "checkpoint/parameter_patterns.h"
#include "core/model/dropout.h"
#include "launch/cli/config_flag.h"
#include "launch/cli/placement_options.h"

namespace strata::cli {

/// Figures of a machine that replace the measured profile. Rates are per second, of one node.
struct MachineOptions {
  std::optional<std::uint64_t> read_bandwidth;  ///< bytes/s of all drives together
  std::optional<std::uint64_t> write_bandwidth;
  std::optional<std::uint64_t> mixed_bandwidth;  ///< bytes/s read plus written, both at once
  std::optional<std::uint64_t> memory_bandwidth;
  std::optional<std::uint64_t> link_bandwidth;  ///< between ranks, per rank and direction
  double teraflops = 0;                         ///< of a rank's products; 0: measured
  double drive_endurance = 0;  ///< terabytes written a drive is rated for; 0: unknown
};

/// What `strata plan` was asked for.
struct PlanOptions {
  std::filesystem::path model;  ///< directory with config.json; empty when `preset` is given
  std::string preset;
  std::int64_t ranks = 1;
  std::int64_t ranks_per_node = 0;  ///< 0: all on one node
  std::int64_t tokens = 0;          ///< of a step over all ranks; 0: from the three below
  std::int64_t per_device_train_batch_size = 8;
  std::int64_t gradient_accumulation_steps = 1;
  std::int64_t train_batch_size = 0;  ///< sequences of a step over all ranks; 0: the product
  std::int64_t sequence_length = 0;   ///< 0: the smaller of 1024 and what the model allows
  OptimizerKind optim = OptimizerKind::kAdamW;
  double momentum = 0.0;  ///< of SGD
  DropoutChoice dropout;
  bool json = false;
  ParameterPatterns patterns;  ///< which parameters are trained; empty: all
  MachineOptions machine;
  PlacementOptions placement;
  ConfigChoices config;
};

/// Declares the flags; `options` must outlive the parsing.
void add_plan_flags(CLI::App& app, PlanOptions& options);

/// Refuses what contradicts itself. Swap directories need not exist: a plan may be for another
/// machine. @throws UsageError
void check(const PlanOptions& options);

}  // namespace strata::cli
