#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/model/config.h"
#include "core/model/transformer.h"
#include "launch/memory_wall.h"
#include "launch/step_rates.h"
#include "parallel/memory_plan.h"
#include "parallel/step_prediction.h"

namespace strata {

/// A job as the planner sees it.
struct PlanSubject {
  std::string name;  ///< of the model, for people
  ModelConfig config;
  DropoutRates dropout;             ///< what training applies
  std::vector<std::string> frozen;  ///< names of parameters, as frozen_parameters() gives them
  StepShape shape;
  StateSections state{true, true};
  PlacementRequest placement;
  int ranks = 1;
  int ranks_per_node = 1;
};

/// What one kind of bytes takes of a rank.
struct PlanRow {
  std::string name;
  std::uint64_t dram = 0;
  std::uint64_t swap = 0;
};

/// Budgets per rank that work, all else equal.
struct SmallestBudgets {
  std::uint64_t dram = 0;
  std::uint64_t swap = 0;        ///< that go with it
  std::uint64_t dram_alone = 0;  ///< without any swap
  bool assumes_swap = false;     ///< the plan itself has none
};

/// Everything `strata plan` and the start of `strata train` say, as numbers. Bytes are of one rank
/// where not said otherwise.
struct PlanReport {
  PlanSubject subject;
  double parameters = 0;  ///< of the model, without padding
  double trainable = 0;   ///< of them
  int blocks = 0;
  MemoryPlan memory;
  std::vector<PlanRow> rows;
  SwapTraffic traffic;
  StepLoad load;
  KnownRates rates;
  StepSeconds seconds;
  std::optional<int> micro_batches_hidden;    ///< from which compute hides I/O in both phases
  std::optional<int> micro_batches_balanced;  ///< the same if phases could share their time
  SmallestBudgets smallest;
  MemoryWall wall;

  std::optional<std::uint64_t> swap_free;  ///< of the node's swap directories together
  double endurance = 0;                    ///< bytes the node's drives are rated for; 0: unknown
  std::vector<std::string> notes;          ///< what the reader should know, in sentences

  double tokens_per_step() const;  ///< over all ranks
  double tokens_per_second() const { return tokens_per_step() / seconds.total(); }
  int nodes() const;
  double written_per_step_of_node() const;
  std::optional<double> steps_until_worn() const;
};

/// The moving parts of a plan, built from a subject without memory in proportion to the model. At
/// rest in memory: the input refers to its neighbours.
class PlanMaterial {
 public:
  explicit PlanMaterial(const PlanSubject& subject);
  PlanMaterial(const PlanMaterial&) = delete;
  PlanMaterial& operator=(const PlanMaterial&) = delete;
  /// With another placement of the same stage, update and dtype.
  MemoryPlanInput input(const PlacementRequest& placement) const;
  const Model& model() const noexcept { return model_; }

 private:
  StepShape shape_;
  StateSections state_;
  Model model_;
  Partition partition_;
  Plan plan_;
  std::vector<BlockCost> costs_;
};

/// Plans. Takes well under a second for any model.
/// @throws UsageError with the smallest budget that works when the subject's does not
PlanReport make_plan_report(const PlanSubject& subject, const RateInputs& rates);

/// "313MiB": a size as flags take it, rounded up, so that what is printed works.
std::string size_flag(std::uint64_t bytes);

/// For people, several lines, each ended.
std::string format_plan(const PlanReport& report);
/// One JSON object.
std::string plan_json(const PlanReport& report);
/// What users of other systems compare with: the same model with everything in memory.
std::string format_memory_wall(const PlanReport& report);

}  // namespace strata
