#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/pretrained_model.h"
#include "launch/generation_bench/energy.h"
#include "launch/generation_bench/report.h"
#include "parallel/context.h"
#include "parallel/generation_plan.h"
#include "parallel/machine_profile.h"
#include "parallel/weight_storage.h"

namespace strata {

/// One model on one tier in one pair of formats: what all batches of a table share.
struct GenerationSetup {
  std::string model;
  GenerationTier tier;
  std::string weights = "bf16";
  std::string kv = "bf16";
  std::int64_t prompt = 512;      ///< tokens of each text
  std::int64_t generated = 32;    ///< tokens of each text
  std::uint64_t dram_bytes = 0;   ///< for everything
  std::uint64_t drive_bytes = 0;  ///< that the tier's drive has free
  std::int64_t rows = 0;          ///< as GeneratorOptions
  int rounds = 1;                 ///< the median of so many counts
  IoEngineOptions io = {};
  MachineProfile machine = {};  ///< what rooflines are made of
};

/// What is computed in and what weights are kept as: bf16, fp32, or int8 and int4 (core's kQ8, kQ4)
/// with bf16. Keys and values are kept in what is computed in, or in int8 or int4.
/// @throws UsageError for formats that are not known, or not together
WeightStorage storage_of(const std::string& weights, const std::string& kv);

/// What stands in the way of `batch` texts at once, if anything does. Plans, takes no memory.
std::optional<GenerationMisfit> find_misfit(const PretrainedModel& model,
                                            const GenerationSetup& setup, std::int64_t batch);

/// The middle one of several measurements of the same, by seconds. @pre not empty
GenerationMeasurement median(std::vector<GenerationMeasurement> measurements);

/// A cell for each batch: the model's weights are brought to the tier once, for the largest batch
/// that fits, then each batch is generated in turn, all of its texts at once, greedily, from ids
/// without meaning. What fails is a cell that says so. Not collective: one rank.
/// @param model all of its parameters frozen
/// @param status gets what is being done, for a line on a terminal
std::vector<GenerationCell> run_generation_cells(
    const Context& context, const PretrainedModel& model, const GenerationSetup& setup,
    const std::vector<std::int64_t>& batches, EnergyRecorder& energy,
    const std::function<void(const std::string&)>& status);

}  // namespace strata
