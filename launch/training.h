#pragma once

#include <cstdint>
#include <optional>

#include "core/metrics.h"
#include "core/process.h"
#include "core/text/dataset.h"
#include "launch/runtime.h"
#include "parallel/trainer.h"

namespace strata {

/// Products of the compute dtype per second on one rank, by its own multiplication, floating-point
/// operations per second: what MFU is a fraction of. Takes about a tenth of a second.
double measure_product_rate(Device& device, Dtype compute);

/// Turns the ranks' reports of a step into one line for people and one object for programs.
/// Collective.
class StepMetricsCollector {
 public:
  /// @param operations of a step on this rank without recomputation
  /// @param product_rate of this rank
  StepMetricsCollector(Communicator& communicator, double operations, double product_rate);

  /// The same on every rank.
  StepMetrics collect(const StepReport& report);

 private:
  Communicator& communicator_;
  double operations_;    // of all ranks
  double product_rate_;  // of all ranks
  EnergyMeter energy_;
};

/// "step 12/200 loss 2.104 norm 0.83 lr 9.8e-04 4012 tok/s MFU 41% swap 0.31 GB in 0.27 GB out,
/// bound by read (87%)"
std::string step_line(const StepMetrics& metrics, std::int64_t total_steps);

/// The loss over all of `passes`. Collective.
EvaluationReport evaluate_all(Trainer& trainer, const EvaluationPasses& passes);

}  // namespace strata
