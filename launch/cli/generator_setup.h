#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>

#include "checkpoint/pretrained_model.h"
#include "launch/cli/placement_options.h"
#include "launch/generation/batch_choice.h"
#include "launch/generation/plan_text.h"
#include "launch/runtime.h"
#include "parallel/context.h"

namespace strata::cli {

/// What generation keeps in memory and how it computes: flags that its commands share beside those
/// of streaming.
struct KeptOptions {
  std::optional<std::uint64_t> kv_memory;  ///< bytes of a rank; none: what --dram has room for
  std::optional<std::uint64_t>
      kv_swap;                   ///< bytes of a rank on swap; none: preempted texts wait nowhere
  Dtype kv = Dtype::kBf16;       ///< kBf16 (as --compute says), kQ8 or kQ4
  Dtype weights = Dtype::kBf16;  ///< kBf16 (as --compute says), kQ8 or kQ4
  std::filesystem::path cache;   ///< of quantised weights; empty: the default
  bool batch_invariant = false;  ///< a text's numbers do not depend on the others'
};

/// Declares --weights, or another flag for the same formats; `weights` must outlive the parsing.
void add_weights_flag(CLI::App& app, Dtype& weights, const std::string& help,
                      const char* flag = "--weights");

/// Declares the flags; `options` must outlive the parsing.
void add_kept_flags(CLI::App& app, KeptOptions& options);

/// Runs the job of a command that has them. In fp32 a text has the same bits whatever is beside it.
int run_generation(const PlacementOptions& placement, const KeptOptions& kept,
                   const std::function<int(Runtime&)>& body);

/// What a generator is made for.
struct GeneratorNeeds {
  std::int64_t sequences = 1;  ///< texts there are for a rank, at most
  std::int64_t sequence_tokens = 1;
  BatchOptions batch = {};
  GenerationWork work = {};
  bool progress = true;
};

/// What a generator is made with.
struct GeneratorSetup {
  GeneratorOptions options;  ///< `sequences`: to have in flight on a rank at most
  ParameterLocator locator;
  std::int64_t hidden_rows = 1;  ///< of a pass: as hidden_rows() of its plan
  GenerationBound computing = GenerationBound::kCompute;  ///< as computing_bound() of its plan
};

/// Examines the drives, chooses how many texts to have in flight, plans, prints the plan and, where
/// weights are quantised and not kept yet, makes them: one rank of each node does. Collective.
/// @throws UsageError as plan_generation(), before work
GeneratorSetup set_up_generator(const Context& context, const PretrainedModel& model,
                                const PlacementOptions& placement, const KeptOptions& kept,
                                const GeneratorNeeds& needs);

}  // namespace strata::cli
