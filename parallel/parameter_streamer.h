#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "core/device.h"
#include "parallel/communicator.h"
#include "parallel/lane_clock.h"
#include "parallel/partition.h"
#include "parallel/plan.h"
#include "parallel/shard_source.h"
#include "parallel/slot_arena.h"

namespace strata {

/// A block (with what it borrows) complete on the device: usable from acquire() to release().
class Visit {
 public:
  const PlannedVisit& planned() const noexcept { return *planned_; }
  /// The weights of a parameter of the visited block or of one it borrows, in the compute dtype or
  /// quantised.
  ConstTensorView weight(Parameter parameter) const;
  struct Staying {
    Parameter parameter;
    TensorView weight;
  };
  /// The weights among them that later visits find in the same memory.
  std::vector<Staying> staying() const;

 private:
  friend class ParameterStreamer;
  /// One part's flat buffer.
  struct Gathered {
    int part = 0;
    int block = 0;
    bool frozen = false;
    const BlockPartition* partition = nullptr;
    TensorView flat;       // [partition->numel()] on the device
    TensorView host_part;  // this rank's shard in host memory: the part of `flat` where the host
                           // reaches it
    Event part_ready;      // host_part is complete
    Event written;         // no write to swap uses host_part any more
    bool kept = false;     // complete since an earlier visit
    bool stays = false;    // later visits find `flat` in the same memory
  };
  static TensorView view(const Gathered& gathered, const Placement& placement);

  const PlannedVisit* planned_ = nullptr;
  Slot slot_;
  Slot staging_;
  std::vector<Gathered> gathered_;
  bool gather_submitted_ = false;
  Event complete_;  // all blocks are complete on the device
};

struct StreamerOptions {
  int prefetch_depth = 2;         ///< visits whose reads are submitted ahead of the current one
  bool keep_gathered = false;     ///< ZeRO 2: gathered weights stay, only updates change them
  bool weights_in_place = false;  ///< one rank: visits compute from what rests in DRAM
  Dtype compute = Dtype::kBf16;
};

/// Makes the blocks of a plan complete on the device, one visit after the other: everything ahead
/// of use and behind it, within its memory. The host submits; it waits only for the visit it asks
/// for.
///
/// Visits are acquired in plan order, and every sequence starts with visit 0. Reads are submitted
/// ahead up to a limit, also into the next step; collectives one visit ahead, in the same order on
/// every rank. Updates of blocks whose weights stay in DRAM need no memory of a visit and run ahead
/// further: up to the first visit whose weights have to be read. What is submitted depends only on
/// what the host submitted and released before, never on timing, so no lane ever waits for
/// something that is queued behind it.
class ParameterStreamer {
 public:
  /// @param shards the ranks that a block is cut into
  /// @param memory of the device, for gathered blocks: largest_visit_bytes() at least, or
  /// all_blocks_bytes() with keep_gathered
  /// @param staging of the host, staging_bytes(); outlives `source`, whose jobs write to it
  ParameterStreamer(const StreamerOptions& options, Device& device, Communicator& shards,
                    const Partition& partition, const Plan& plan, ShardSource& source,
                    std::span<std::byte> memory, std::span<std::byte> staging, LaneClock& clock);

  /// Bytes of gathered weights of the largest visit: the least a streamer can work with.
  static std::size_t largest_visit_bytes(const Partition& partition, const Plan& plan,
                                         Dtype compute);
  /// Bytes of all blocks: what keep_gathered needs.
  static std::size_t all_blocks_bytes(const Partition& partition, Dtype compute);

  /// Shards of all visits under way, on their way to a device that the host cannot reach; else 0.
  static std::size_t staging_bytes(const StreamerOptions& options, const Device& device,
                                   const Partition& partition, const Plan& plan);

  /// Blocks until visit `index` is complete. `limit`: visits before it, counted on through the end
  /// of the plan, are certain to be acquired after this one, so their reads may start.
  Visit& acquire(int index, int limit);
  /// The weights of the current visit are not used after what was submitted to `compute` so far.
  void release(Visit& visit, Stream& compute);

  /// Every block has a pending update from now on: its next first visit runs it. The gradients need
  /// not be at rest before `decision` is known.
  void set_pending(const std::shared_ptr<const StepDecision>& decision);
  /// Fused: updates the current visit's block from its weights in place, once `gradient_at_rest`.
  /// Call between the last use of the weights and release().
  void update_now(Visit& visit, const std::shared_ptr<const StepDecision>& decision,
                  const Event& gradient_at_rest);
  /// Blocks until every update that was submitted can be fetched.
  void settle() const;
  /// The sections of a part were changed behind the streamer's back; nothing is under way.
  void forget(int part) { kept_complete_[static_cast<std::size_t>(part)] = false; }

 private:
  bool submit();
  bool place(Visit& visit);
  void submit_reads(Visit& visit);
  void submit_updates(int limit);
  void submit_update(int part);
  void submit_gather(Visit& visit);
  TensorView shard_of(const Visit::Gathered& gathered) const;
  bool in_place(int part) const { return options_.weights_in_place && source_.weights_stay(part); }

  StreamerOptions options_;
  Device& device_;
  Communicator& shards_;
  const Partition& partition_;
  const Plan& plan_;
  ShardSource& source_;
  LaneClock& clock_;
  SlotArena slots_;
  SlotArena staging_;
  std::vector<TensorView> kept_;                              // keep_gathered: by part
  std::vector<bool> kept_complete_;                           // by part
  std::vector<std::shared_ptr<const StepDecision>> pending_;  // by part; null: none
  std::vector<Event> stored_;  // by part: the update of its last submitted visit can be fetched
  std::vector<std::optional<Event>> ahead_;  // the same of an update submitted before its visit
  std::deque<std::unique_ptr<Visit>>
      window_;                    // submitted, not released; the front is the current one
  int next_ = 0;                  // to submit next, counted on from the current sequence's start
  std::unique_ptr<Stream> copy_;  // host to device; null where they are one
};

}  // namespace strata
