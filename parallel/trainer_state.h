#pragma once

// Internal to the trainer: everything it owns, in the order of construction. Not installed.

#include <optional>

#include "parallel/boundary_store.h"
#include "parallel/gradient_pipeline.h"
#include "parallel/master_reader.h"
#include "parallel/parameter_streamer.h"
#include "parallel/shard_updater.h"
#include "parallel/trainer.h"

namespace strata {

struct Trainer::State {
  State(const Context& context, const Model& model, const TrainerOptions& options, Trace* trace);
  ~State();

  // Decided once.
  Context context;
  const Model& model;
  TrainerOptions options;
  Trace no_trace{false};
  LaneClock clock;
  std::unique_ptr<Communicator> replicated;  // ZeRO 0: a shard group of one on every rank
  Communicator& shards;
  std::unique_ptr<UpdateRule> rule;
  Partition partition;
  Plan plan;
  std::vector<BlockCost> costs;
  MemoryPlan memory;

  // Memory, before whatever transfers to and from it.
  Buffer device_memory;   // gathered blocks, gradient accumulators, boundary gradients, batch
  Buffer host_memory;     // chunk pool, gradient staging
  Buffer weight_staging;  // empty where the host reaches the device
  Buffer boundary_memory;
  Buffer boundary_landing;  // boundaries that come from host memory on a device apart from it
  Workspace workspace;

  // Tiers and lanes.
  std::unique_ptr<IoEngine> engine;
  std::unique_ptr<SwapSpace> boundary_swap;
  ShardStore store;
  std::unique_ptr<Stream> compute;
  ShardUpdater updater;
  ParameterStreamer streamer;
  GradientPipeline gradients;
  BoundaryStore boundaries;
  MasterReader reader;

  // What a run is at.
  std::vector<DeviceBatch> batch;              // by micro-batch, views into device_memory
  std::vector<TensorView> boundary_gradients;  // by micro-batch
  std::vector<double> losses;  // sums by micro-batch; the compute lane writes them, they never move
  std::int64_t steps = 0;
  std::int64_t updates_done = 0;
  std::int64_t skipped_steps = 0;
  std::optional<LossScaler> loss_scaler;  // of fp16
  double last_norm = 0;
  bool has_pending = false;
  bool draws = false;                           // random numbers: not in evaluation
  std::shared_ptr<StepDecision> open_decision;  // of a step whose gradients are not complete
  std::function<void(const StepReport&)> callback;

  void load_batch(const Batch& input);
  /// Of the step that comes.
  double loss_scale() const noexcept { return loss_scaler ? loss_scaler->scale() : 1.0; }
  /// After an exception: returns when the compute lane uses nothing of the caller's any more.
  void give_up() noexcept;
  int micro_batches() const noexcept { return static_cast<int>(batch.size()); }
  /// boundaries.input(), on the device.
  TensorView boundary_input(int boundary, int micro_batch);
  /// What random numbers of a block's visits in this step go by.
  std::optional<std::uint64_t> randomness(int block) const;
  /// Visits of all blocks but the last, on the loaded batch.
  void run_forward(int limit);
  MemoryPlanInput plan_input() const;

 private:
  enum class DevicePiece : std::uint8_t { kGathered, kGradients, kBoundaryGradients, kBatch };
  std::span<std::byte> device_piece(DevicePiece which) const;
  StreamerOptions streamer_options() const;
  std::unique_ptr<SwapSpace> make_swap(std::uint64_t bytes);
  BoundaryStore::Shape boundary_shape() const { return strata::boundary_shape(plan_input()); }
  BoundaryStore make_boundaries();
  void agree_on_plan();
  /// Pins the memory that most transfers use, where the system allows it.
  void register_transfers();
  void check(const MicroBatch& micro_batch) const;
};

}  // namespace strata
