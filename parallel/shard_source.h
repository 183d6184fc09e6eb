#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/stream.h"
#include "core/tensor.h"

namespace strata {

struct StepDecision;

/// One pass over a shard.
struct ShardJob {
  int part = 0;  ///< of the partition; with a decision, a trainable one
  /// Host memory for the shard's weights in the compute dtype, [shard_numel]; the job writes it.
  /// Empty: nobody wants them.
  TensorView weights;
  /// The weights' memory may be used after all of these.
  std::vector<Event> weights_free;
  /// An earlier job's update can be fetched.
  Event sections_stored;
  /// Whether `weights` already holds hi, so that it is not read again (where products read it).
  bool weights_loaded = false;
  /// What to update with; null: only weights are wanted, from hi (and lo, unless products read hi),
  /// or as they are where the part is frozen.
  std::shared_ptr<const StepDecision> decision;
  /// The shard's gradient is at rest: nothing reads it before, nor before the decision is known.
  Event gradient_at_rest;
};

/// Where the streamer gets this rank's shards of weights from. Calls never wait; they come from one
/// thread.
class ShardSource {
 public:
  virtual ~ShardSource() = default;

  /// Whether the part's weights rest in DRAM, so that nothing is read for them.
  virtual bool weights_stay(int part) const = 0;
  /// The whole shard's weights where they rest, as products read them. @pre weights_stay(part), and
  /// they rest in the compute dtype
  virtual TensorView resident_weights(int part) = 0;
  /// Starts to bring the weights of a part that stays, if they are still to come.
  /// @return when they are complete: once, for the first visit that needs them
  virtual std::optional<Event> load_resident(int /*part*/) { return std::nullopt; }

  struct Submitted {
    Event done;     ///< the weights are complete, and a later fetch of the sections sees the update
    Event written;  ///< nothing reads `weights` any more for this job's own sake
  };
  virtual Submitted submit(const ShardJob& job) = 0;
};

}  // namespace strata
