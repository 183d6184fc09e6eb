#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/model/batch.h"
#include "core/model/block.h"
#include "core/trace.h"
#include "parallel/context.h"
#include "parallel/memory_plan.h"
#include "parallel/parameter_values.h"
#include "parallel/step_report.h"
#include "parallel/trainer_options.h"

namespace strata {

/// Trains a model whose state is partitioned over the ranks of a context and streamed through its
/// tiers.
///
/// Every method is collective: all ranks call it, in the same order, from one thread. Exceptions
/// leave the trainer unusable; let them reach main(), which ends the job.
class Trainer {
 public:
  /// Plans, then takes memory and swap space, all of it. The state starts as `source` says.
  /// @param model borrowed, outlives the trainer; the same on every rank
  /// @param trace borrowed; null: none is kept
  /// @throws UsageError when the plan does not fit, before anything was allocated
  Trainer(const Context& context, const Model& model, const TrainerOptions& options,
          const ParameterSource& source, Trace* trace = nullptr);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// One optimizer step over this rank's part of the batch. With lazy updates the parameters change
  /// when the next forward phase visits them.
  /// @pre the batch has the micro-batches and shapes of TrainerOptions::shape
  StepReport step(const Batch& batch);

  /// The loss of at most shape.micro_batches micro-batches under the current parameters.
  EvaluationReport evaluate(const Batch& batch);

  /// Applies pending updates to all blocks.
  void flush();

  /// Elements [begin, begin + values.size()) of a parameter's fp32 master, on every rank. Flushes
  /// first. Of a frozen parameter there is only what products read, in the compute dtype.
  void read(Parameter parameter, std::int64_t begin, std::span<float> values);
  /// Reads parameters, whole and in this order, beside the step that follows: returns at once. The
  /// values are those after the last step: masters, or with `precision` kBf16 what bf16 products
  /// read of them, for half the bytes. The next step reads them while no update is due (lazy: in
  /// its backward phase; fused: in its forward phase) and waits for the rest of them before it goes
  /// on (StepReport::seconds_read_beside). `sink`, then `finish`, are called on rank 0 only, on a
  /// lane of their own; what they throw is thrown by a later call of this trainer. Takes 16 MiB on
  /// every rank. Ends an earlier reading first.
  void read_beside(std::vector<Parameter> parameters, Dtype precision, ParameterSink sink,
                   std::function<void()> finish);
  /// Reads what is left, and blocks until `finish` has returned.
  void finish_reading();
  /// Whether finish_reading() has anything to do. Not collective. @throws what `sink` or `finish`
  /// threw
  bool reading() const;
  /// A whole parameter by name. @throws UsageError if there is none of that name
  std::vector<float> read(const std::string& name);
  /// Replaces a whole parameter; every rank passes the same values. Optimizer state stays.
  /// @throws UsageError if there is none of that name or it is frozen
  void write(const std::string& name, std::span<const float> values);

  const Model& model() const noexcept;
  const MemoryPlan& memory_plan() const noexcept;
  SwapTraffic predicted_traffic() const noexcept;
  /// Floating-point operations of one step on this rank: forward, backward and recomputation.
  double operations_per_step() const noexcept;
  /// The same without recomputation: three times those of a forward pass.
  double useful_operations_per_step() const noexcept;
  std::int64_t steps_done() const noexcept;
  std::int64_t updates_done() const noexcept;
  /// Called after every step on every rank, e.g. to log or to read parameters.
  void on_step(std::function<void(const StepReport&)> callback);

  struct State;  ///< internal: trainer_state.h

 private:
  void fill(const ParameterSource& source);
  Parameter find_parameter(const std::string& name) const;

  std::unique_ptr<State> state_;
};

}  // namespace strata
