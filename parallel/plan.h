#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/block.h"

namespace strata {

/// When the update of a block runs (DESIGN: "when the update runs").
enum class UpdateTiming : std::uint8_t {
  kLazy,   ///< in the next step's first visit of the block, when clip and finiteness are known
  kFused,  ///< in the visit that completes its gradient: no exact global clip
};

enum class Phase : std::uint8_t { kForward, kBackward };

/// One visit, as decided before the first step.
struct PlannedVisit {
  int block = 0;
  Phase phase = Phase::kForward;
  bool gathers = true;              ///< the block's own weights are made complete
  bool updates_before = false;      ///< lazy: a pending update of the block runs as it is gathered
  bool completes_gradient = false;  ///< no later visit of the step adds to the block's gradient
  bool updates_after = false;  ///< fused: the update runs when this visit's gradient is reduced
  std::vector<int> borrowed =
      {};                       ///< parts of other blocks that it reads (tied tables), gathered too
  std::vector<int> parts = {};  ///< everything gathered: of its own, then what it borrows
};

/// The sequence of visits of one training step (or of one pass of generation): forward over all
/// blocks but the last, then backward from the last to the lowest that is trained. Immutable, the
/// same on every rank. The forward part followed by the last block's visit is also evaluation, and
/// without computing it is what flushes pending updates.
class Plan {
 public:
  /// @throws UsageError if no parameter of the model is trainable
  Plan(const Model& model, UpdateTiming timing);
  /// Generation: one forward visit of every block, with nothing behind it.
  /// @param looks_up the first block's weights come from elsewhere: its visit gathers nothing
  static Plan forward_only(const Model& model, bool looks_up = false);

  std::span<const PlannedVisit> visits() const noexcept { return visits_; }
  const PlannedVisit& visit(int index) const { return visits_.at(static_cast<std::size_t>(index)); }
  int size() const noexcept { return static_cast<int>(visits_.size()); }
  /// Index of the last block's visit: the first of the backward phase.
  int turn() const noexcept { return turn_; }
  /// The lowest block that is visited backward.
  int lowest() const { return visits_.back().block; }
  /// Boundaries (outputs of blocks) that no backward visit asks for: those below the lowest block's
  /// input.
  int passing_boundaries() const { return lowest() > 0 ? lowest() - 1 : 0; }
  /// Visits of the step that gather the part, as own or borrowed.
  int gathers(int part) const;
  /// Equal plans of equal models have equal hashes.
  std::uint64_t hash() const noexcept { return hash_; }

 private:
  Plan() = default;

  std::vector<PlannedVisit> visits_;
  int turn_ = 0;
  std::uint64_t hash_ = 0;
};

}  // namespace strata
