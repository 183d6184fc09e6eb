#pragma once

#include <string>
#include <vector>

#include "core/model/block.h"
#include "optimizer/update_rule.h"
#include "parallel/block_costs.h"
#include "parallel/boundary_store.h"
#include "parallel/partition.h"
#include "parallel/plan.h"
#include "parallel/trainer_options.h"
#include "swap/shard_store.h"

namespace strata {

/// Everything about one rank's memory, decided before the first step. All sizes in bytes.
struct MemoryPlan {
  ShardLayout layout;
  Residency residency{0};
  bool keep_gathered = false;
  /// One rank computes from its resident weights where they lie: nothing is gathered.
  bool weights_in_place = false;
  int prefetch_depth = 0;
  bool boundaries_on_swap = false;
  int boundary_slots = 0;  ///< tensors in memory when they are on swap

  std::size_t gathered = 0;          ///< complete blocks
  std::size_t gradient_buffers = 0;  ///< fp32 accumulators
  std::size_t chunk_pool = 0;        ///< sections on their way through read, update and write
  std::size_t gradient_staging = 0;  ///< gradients on their way to swap
  std::size_t shared_gradients = 0;  ///< fp32 shards of tied tables
  std::size_t workspace = 0;         ///< activations inside one block
  std::size_t boundaries = 0;        ///< activations between blocks
  std::size_t boundary_gradients = 0;
  std::size_t batch = 0;     ///< token ids, labels, positions
  std::size_t resident = 0;  ///< state sections that stay, gradients included

  std::size_t dram() const;  ///< the sum of the above
  std::uint64_t swap_state() const { return ShardStore::swap_bytes(layout, residency); }
  std::uint64_t swap_boundaries = 0;
  std::uint64_t swap() const { return swap_state() + swap_boundaries; }
};

/// What a memory plan is made for.
struct MemoryPlanInput {
  const Model& model;
  const Partition& partition;
  const Plan& plan;
  const std::vector<BlockCost>& costs;
  StepShape shape;
  StateSections state;
  PlacementRequest placement;
  bool host_accessible = true;  ///< Device::is_host_accessible()
};

/// The activations between blocks of a step.
BoundaryStore::Shape boundary_shape(const MemoryPlanInput& input);

/// Fixed buffers first, then boundary activations and room to look ahead, and with what is left the
/// sections that save most I/O per byte: weights that are gathered twice, gradients, the rest. A
/// fixed set, spread evenly over the blocks so that the drive always has something to do. Without
/// residency gradients come first and nothing else stays.
/// @throws UsageError with the smallest budget that works when this one does not, or the capacity
/// that it takes on swap
MemoryPlan make_memory_plan(const MemoryPlanInput& input);

/// The smallest --dram that works, all else equal.
std::uint64_t smallest_dram(const MemoryPlanInput& input);

/// Bytes that one rank moves to and from swap in one step.
struct SwapTraffic {
  std::uint64_t forward_read = 0;
  std::uint64_t forward_written = 0;
  std::uint64_t backward_read = 0;
  std::uint64_t backward_written = 0;
  std::uint64_t read() const noexcept { return forward_read + backward_read; }
  std::uint64_t written() const noexcept { return forward_written + backward_written; }
};
SwapTraffic predict_traffic(const MemoryPlanInput& input, const MemoryPlan& plan);

}  // namespace strata
