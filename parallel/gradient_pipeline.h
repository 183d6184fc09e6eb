#pragma once

#include <memory>
#include <vector>

#include "core/device.h"
#include "optimizer/gradient_norm.h"
#include "parallel/communicator.h"
#include "parallel/lane_clock.h"
#include "parallel/partition.h"
#include "parallel/plan.h"
#include "parallel/slot_arena.h"
#include "swap/shard_store.h"

namespace strata {

/// Takes the gradients of visits from fp32 accumulators on the device to this rank's shard in the
/// resting dtype: reduced over the ranks, rounded once, in DRAM or on swap, squared and checked for
/// infinities.
///
/// All calls come from the thread that submits to `compute` and to the communicator. begin_*()
/// makes `compute` wait until an earlier gradient has left the memory; nothing else waits.
class GradientPipeline {
 public:
  /// @param resting dtype of section gradient
  /// @param memory of the device, for accumulators: largest_bytes() at least; twice that overlaps
  /// @param staging host memory for gradients on their way to swap: staging_bytes() at least
  GradientPipeline(Device& device, Stream& compute, Communicator& shards, const Model& model,
                   const Partition& partition, ShardStore& store, Dtype resting,
                   std::span<std::byte> memory, std::span<std::byte> staging, LaneClock& clock);
  ~GradientPipeline();
  GradientPipeline(const GradientPipeline&) = delete;
  GradientPipeline& operator=(const GradientPipeline&) = delete;

  /// The accumulators of one visit at most: the dense gradient of the largest layer, or a tile.
  static std::size_t largest_bytes(const Model& model, const Partition& partition);
  /// The largest shard of a gradient that rests on swap.
  static std::size_t staging_bytes(const ShardLayout& layout, const Residency& residency);
  /// fp32 shards of blocks whose tables others borrow: kept beside `memory`.
  static std::size_t shared_bytes(const Model& model, const Partition& partition);

  /// Zeroed accumulators [dense numel] of the visited block's dense gradients.
  TensorView begin_dense(int block);
  void finish_dense();
  /// A zeroed tile [rows, columns] of a row-tiled parameter. One dense accumulator and one tile may
  /// be open at a time.
  TensorView begin_rows(Parameter parameter, std::int64_t row_begin, std::int64_t rows);
  void finish_rows();
  /// No more gradients for the block in this step. @return when its shard is at rest
  Event finish_block(int block);

  /// Blocks until everything is at rest; the norm of this rank's shards of the step, and starts
  /// anew.
  GradientNorm collect();

 private:
  struct Open {
    int block = -1;
    std::int64_t begin = 0;  // flat elements
    std::int64_t numel = 0;
    Slot slot;
    TensorView accumulator;
  };
  Open open(int block, std::int64_t begin, std::int64_t numel);
  void send(Open& open);
  void hand_over(int block, TensorView piece, std::int64_t shard_begin);
  void take_piece(int block, ConstTensorView piece, std::int64_t shard_begin);
  Lease& assembly(int block);
  void settle(int block);

  Device& device_;
  Stream& compute_;
  Communicator& shards_;
  const Partition& partition_;
  ShardStore& store_;
  Dtype resting_;
  LaneClock& clock_;
  std::byte* memory_;
  SlotArena slots_;
  Buffer mirror_;  // host; where the host cannot reach the device: reduced pieces of memory_
  MemoryPool staging_;
  Open dense_;
  Open rows_;
  std::vector<Buffer> shared_;       // by block: fp32 shard of a borrowed block, else empty
  std::vector<Lease> assemblies_;    // by block: where the shard is put together; the lane's own
  std::vector<GradientNorm> norms_;  // by block, likewise
  std::unique_ptr<Stream> copy_;     // device to mirror_; null where there is none
  std::unique_ptr<Stream> spill_;    // waits for writes, gives staging memory back
  std::unique_ptr<Stream> lane_;     // rounds; ends first, since its work uses all of the above
};

}  // namespace strata
