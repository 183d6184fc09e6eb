#include "parallel/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/units.h"
#include "optimizer/split.h"
#include "parallel/gradient_pipeline.h"
#include "parallel/parameter_streamer.h"
#include "parallel/shard_updater.h"

namespace strata {
namespace {

/// Chunks that a pool holds where memory allows: enough for the drive's queue in both directions.
constexpr std::size_t kPreferredChunks = 8;
/// Visits whose weights are in memory at once where memory allows: one in use, two ahead.
constexpr std::size_t kPreferredVisits = 3;

struct Candidate {
  SectionKey key;
  double accesses = 0;  // transfers that residency saves per step and byte
  double order = 0;     // among equals
};

class Planner {
 public:
  explicit Planner(const MemoryPlanInput& input) : in_(input), place_(input.placement) {
    plan_.residency = Residency(parts());
    plan_.keep_gathered = place_.stage < 3;
    lay_out_state();
    size_fixed_buffers();
    size_least_buffers();
  }

  MemoryPlan run() {
    const std::uint64_t budget =
        place_.dram_bytes.value_or(std::numeric_limits<std::uint64_t>::max());
    place_what_is_given();
    if (plan_.dram() > budget) refuse(budget, plan_.dram());
    left_ = budget - plan_.dram();
    if (!can_swap()) {
      widen_buffers();
    } else if (place_.residency) {
      place_boundaries();
      place_weights();
      widen_buffers();
      fill(2);  // what saves more than two transfers: weights that are gathered twice
      place_gradients();
      fill(0);
    } else {
      place_gradients();
      place_boundaries();
      widen_buffers();
    }
    if (plan_.swap_state() == 0) plan_.chunk_pool = 0;
    choose_prefetch_depth();
    plan_.swap_boundaries =
        plan_.boundaries_on_swap ? BoundaryStore::swap_bytes(boundary_shape()) : 0;
    return plan_;
  }

  /// What the least buffers and the placements by hand need.
  std::uint64_t smallest() {
    place_what_is_given();
    return plan_.dram();
  }

 private:
  int parts() const { return in_.partition.part_count(); }
  bool can_swap() const { return !place_.swap.empty(); }
  bool is_free(Section section) const {
    return place_.sections[static_cast<std::size_t>(section)] == Place::kAuto;
  }
  BoundaryStore::Shape boundary_shape() const { return strata::boundary_shape(in_); }

  void lay_out_state() {
    for (int part = 0; part < parts(); ++part) {
      plan_.layout.shard_numel.push_back(in_.partition.part(part).shard_numel());
      plan_.layout.frozen.push_back(in_.partition.frozen(part));
    }
    const std::size_t compute = size_bytes(place_.compute);
    plan_.layout.element_bytes = {
        2, 2, in_.state.m ? std::size_t{4} : 0, in_.state.v ? std::size_t{4} : 0, compute, compute};
  }

  void size_fixed_buffers() {
    for (const BlockCost& cost : in_.costs) {
      plan_.workspace =
          std::max({plan_.workspace, cost.forward_workspace, cost.backward_workspace});
    }
    const BoundaryStore::Shape shape = boundary_shape();
    plan_.boundary_gradients = shape.tensor_bytes() * static_cast<std::size_t>(shape.micro_batches);
    plan_.batch = static_cast<std::size_t>(in_.shape.tokens() * in_.shape.micro_batches) * 4 *
                  sizeof(std::int32_t);
    plan_.shared_gradients = GradientPipeline::shared_bytes(in_.model, in_.partition);
  }

  void size_least_buffers() {
    plan_.gathered =
        plan_.keep_gathered
            ? ParameterStreamer::all_blocks_bytes(in_.partition, place_.compute)
            : ParameterStreamer::largest_visit_bytes(in_.partition, in_.plan, place_.compute);
    plan_.gradient_buffers = GradientPipeline::largest_bytes(in_.model, in_.partition);
    plan_.chunk_pool = can_swap() ? one_chunk() : 0;
    const BoundaryStore::Shape shape = boundary_shape();
    plan_.boundaries_on_swap = can_swap() && place_.activations != Place::kDram &&
                               BoundaryStore::least_slots(shape) < shape.tensors();
    plan_.boundary_slots = BoundaryStore::least_slots(shape);
    plan_.boundaries = plan_.boundaries_on_swap
                           ? shape.tensor_bytes() * static_cast<std::size_t>(plan_.boundary_slots)
                           : BoundaryStore::memory_bytes(shape);
    plan_.gradient_staging = can_swap() ? staging_for(plan_.residency) : 0;
  }

  std::size_t one_chunk() const {
    std::int64_t largest = 0;
    for (int part = 0; part < in_.partition.block_count(); ++part) {
      largest = std::max(largest, in_.partition.part(part).shard_numel());
    }
    const double share = std::min(
        1.0, static_cast<double>(largest) / static_cast<double>(ShardUpdater::kChunkNumel));
    const auto bytes = static_cast<double>(ShardUpdater::chunk_bytes(plan_.layout));
    return static_cast<std::size_t>(bytes * share) +
           (kStateSections.size() + 1) * MemoryPool::kAlignment;
  }
  std::size_t staging_for(const Residency& residency) const {
    return GradientPipeline::staging_bytes(plan_.layout, residency);
  }

  void place_what_is_given() {
    decide_by_hand();
    if (!can_swap()) make_everything_resident();
    use_weights_in_place();
  }

  /// Frees the memory for gathered blocks where nobody else has a part of the weights and all of
  /// them rest in memory that the device computes from.
  void use_weights_in_place() {
    if (!can_compute_in_place()) return;
    for (int part = 0; part < parts(); ++part) {
      const SectionKey key = plan_.layout.weights(part);
      if (plan_.layout.bytes(key) > 0 && !plan_.residency.resident(key)) return;
    }
    plan_.weights_in_place = true;
    plan_.keep_gathered = false;
    plan_.gathered = 0;
  }
  bool can_compute_in_place() const {
    return in_.partition.ranks() == 1 && reads_hi(place_.compute) && in_.host_accessible;
  }

  /// All weights at once, where the memory for gathered blocks that this frees makes room for them.
  void place_weights() {
    if (!can_compute_in_place() || !is_free(Section::kHi) || !is_free(Section::kWeights)) return;
    std::uint64_t all = 0;
    for (int part = 0; part < parts(); ++part) {
      all += plan_.layout.bytes(plan_.layout.weights(part));
    }
    if (all > left_ + plan_.gathered) return;
    left_ += plan_.gathered;
    left_ -= all;
    for (int part = 0; part < parts(); ++part) make_resident(plan_.layout.weights(part));
    use_weights_in_place();
  }

  void make_resident(SectionKey key) {
    if (plan_.residency.resident(key)) return;
    plan_.residency.set(key, true);
    plan_.resident += plan_.layout.bytes(key);
  }
  void decide_by_hand() {
    for (int s = 0; s < kSectionCount; ++s) {
      if (place_.sections[static_cast<std::size_t>(s)] != Place::kDram) continue;
      for (int part = 0; part < parts(); ++part) make_resident({part, static_cast<Section>(s)});
    }
    if (can_swap()) plan_.gradient_staging = staging_for(plan_.residency);
  }
  void make_everything_resident() {
    for (int part = 0; part < parts(); ++part) {
      for (int s = 0; s < kSectionCount; ++s) make_resident({part, static_cast<Section>(s)});
    }
  }

  bool take(std::uint64_t bytes) {
    if (bytes > left_) return false;
    left_ -= bytes;
    return true;
  }

  void place_gradients() {
    if (!is_free(Section::kGradient)) return;
    std::uint64_t all = 0;
    for (int part = 0; part < parts(); ++part) {
      all += plan_.layout.bytes({part, Section::kGradient});
    }
    // The staging buffer is not needed when nothing is spilled.
    left_ += plan_.gradient_staging;
    if (take(all)) {
      for (int part = 0; part < parts(); ++part) make_resident({part, Section::kGradient});
      plan_.gradient_staging = 0;
      return;
    }
    left_ -= plan_.gradient_staging;
    std::vector<Candidate> candidates;
    for (int part = 0; part < parts(); ++part) {
      candidates.push_back(candidate({part, Section::kGradient}, 2));
    }
    take_in_order(candidates);
  }

  void place_boundaries() {
    if (!plan_.boundaries_on_swap || place_.activations == Place::kSwap) return;
    const std::size_t all = BoundaryStore::memory_bytes(boundary_shape());
    left_ += plan_.boundaries;
    if (take(all)) {
      plan_.boundaries = all;
      plan_.boundaries_on_swap = false;
    } else {
      left_ -= plan_.boundaries;
    }
  }

  void widen(std::size_t& buffer, std::size_t preferred) {
    if (preferred <= buffer) return;
    const std::uint64_t more = std::min<std::uint64_t>(preferred - buffer, left_);
    left_ -= more;
    buffer += static_cast<std::size_t>(more);
  }
  void widen_buffers() {
    const bool gathers = !plan_.keep_gathered && !plan_.weights_in_place;
    if (gathers) widen(plan_.gathered, plan_.gathered + typical_visit());
    widen(plan_.chunk_pool, can_swap() ? kPreferredChunks * one_chunk() : 0);
    widen(plan_.gradient_buffers, 2 * plan_.gradient_buffers);
    if (gathers) {
      widen(plan_.gathered, plan_.gathered + (kPreferredVisits - 2) * typical_visit());
    }
  }
  /// Gathered bytes of the median block.
  std::size_t typical_visit() const {
    std::vector<std::int64_t> numel;
    const int blocks = in_.partition.block_count();
    for (int b = 0; b < blocks; ++b) {
      numel.push_back(in_.partition.part(b).numel() + in_.partition.part(blocks + b).numel());
    }
    const auto middle = numel.begin() + static_cast<std::ptrdiff_t>(numel.size() / 2);
    std::ranges::nth_element(numel, middle);
    return static_cast<std::size_t>(*middle) * size_bytes(place_.compute);
  }

  static Candidate candidate(SectionKey key, double accesses) {
    // The golden ratio visits blocks so that any first few are spread evenly.
    const double turn = (key.block + 1) * 0.6180339887498949;
    return {key, accesses, turn - std::floor(turn)};
  }
  void take_in_order(std::vector<Candidate>& candidates) {
    std::ranges::stable_sort(candidates, [](const Candidate& a, const Candidate& b) {
      return a.accesses != b.accesses ? a.accesses > b.accesses : a.order < b.order;
    });
    for (const Candidate& c : candidates) {
      if (!plan_.residency.resident(c.key) && take(plan_.layout.bytes(c.key))) make_resident(c.key);
    }
  }
  /// Sections that save more than so many transfers per byte, those that save most first.
  void fill(double transfers) {
    std::vector<Candidate> candidates;
    const auto consider = [&](SectionKey key, double accesses) {
      if (is_free(key.section) && plan_.layout.bytes(key) > 0 && accesses > transfers) {
        candidates.push_back(candidate(key, accesses));
      }
    };
    for (int part = 0; part < parts(); ++part) {
      const double gathers = in_.plan.gathers(part);
      for (const Section section : kStateSections) {
        const bool weights =
            section == Section::kHi || (section == Section::kLo && !reads_hi(place_.compute));
        consider({part, section}, (weights ? gathers : 1) + 1);
      }
      consider({part, Section::kWeights}, gathers);  // never written
    }
    take_in_order(candidates);
  }

  void choose_prefetch_depth() {
    constexpr int kMost = 8;
    const std::size_t one = std::max<std::size_t>(1, typical_visit());
    const auto fits = static_cast<int>(plan_.gathered / one);
    const bool gathers = !plan_.keep_gathered && !plan_.weights_in_place;
    plan_.prefetch_depth = place_.prefetch_depth >= 0 ? place_.prefetch_depth
                           : gathers                  ? std::clamp(fits, 1, kMost)
                                                      : 3;
  }

  [[noreturn]] void refuse(std::uint64_t budget, std::uint64_t needed) const {
    const std::uint64_t mebibytes = (needed + (1 << 20) - 1) >> 20;  // what is printed must work
    throw UsageError(fmt::format(
        "--dram: {} is too small for this plan{}; use --dram {}MiB or more, fewer or shorter "
        "sequences per micro-batch, or more ranks",
        format_bytes(budget), can_swap() ? "" : ", since without --swap everything must fit",
        mebibytes));
  }

  const MemoryPlanInput& in_;
  const PlacementRequest& place_;
  MemoryPlan plan_;
  std::uint64_t left_ = 0;
};

/// Whether swap is used no matter how much memory there is.
bool wants_swap(const PlacementRequest& placement) {
  return !placement.residency || placement.activations == Place::kSwap ||
         std::ranges::count(placement.sections, Place::kSwap) > 0;
}

}  // namespace

BoundaryStore::Shape boundary_shape(const MemoryPlanInput& input) {
  return {.boundaries = input.model.block_count() - 1,
          .passing = input.plan.passing_boundaries(),
          .micro_batches = input.shape.micro_batches,
          .dtype = input.placement.compute,
          .tokens = input.shape.tokens(),
          .hidden = input.model.hidden_size()};
}

std::size_t MemoryPlan::dram() const {
  return gathered + gradient_buffers + chunk_pool + gradient_staging + shared_gradients +
         workspace + boundaries + boundary_gradients + batch + resident;
}

MemoryPlan make_memory_plan(const MemoryPlanInput& input) {
  const PlacementRequest& placement = input.placement;
  // What holds everything needs none of the buffers of a swap tier.
  MemoryPlanInput whole = input;
  whole.placement.swap.clear();
  const bool fits = !wants_swap(placement) &&
                    (!placement.dram_bytes || Planner(whole).smallest() <= *placement.dram_bytes);
  MemoryPlan plan = Planner(fits ? whole : input).run();
  if (placement.swap_bytes && plan.swap() > *placement.swap_bytes) {
    throw UsageError(fmt::format(
        "--swap-capacity {} is too small for this plan: it needs {} per rank; raise it to {}, or "
        "give Strata more --dram",
        format_bytes(*placement.swap_bytes), format_bytes(plan.swap()), format_bytes(plan.swap())));
  }
  return plan;
}

std::uint64_t smallest_dram(const MemoryPlanInput& input) { return Planner(input).smallest(); }

SwapTraffic predict_traffic(const MemoryPlanInput& input, const MemoryPlan& plan) {
  SwapTraffic traffic;
  const bool joins = !reads_hi(input.placement.compute);
  const bool lazy = input.placement.update == UpdateTiming::kLazy;
  std::vector<bool> gathered(static_cast<std::size_t>(input.partition.part_count()), false);
  const auto swapped = [&](int part, Section section) -> std::uint64_t {
    const SectionKey key{part, section};
    return plan.residency.resident(key) ? 0 : plan.layout.bytes(key);
  };
  const auto weights = [&](int part) -> std::uint64_t {
    if (input.partition.frozen(part)) {
      return plan.keep_gathered ? 0 : swapped(part, Section::kWeights);
    }
    const bool first = !gathered[static_cast<std::size_t>(part)];
    gathered[static_cast<std::size_t>(part)] = true;
    // Kept weights stand in for hi, except that a lazy update of a block whose halves are joined as
    // it is gathered first needs both of them, and that a fused one makes its next gather load it
    // anew.
    const bool kept = plan.keep_gathered && !(first && (joins || !lazy));
    return kept ? 0 : swapped(part, Section::kHi) + (joins ? swapped(part, Section::kLo) : 0);
  };
  for (const PlannedVisit& visit : input.plan.visits()) {
    const bool forward = visit.phase == Phase::kForward;
    std::uint64_t& read = forward ? traffic.forward_read : traffic.backward_read;
    std::uint64_t& written = forward ? traffic.forward_written : traffic.backward_written;
    const int b = visit.block;
    for (const int part : visit.parts) read += weights(part);
    if (visit.updates_before || visit.updates_after) {
      if (visit.updates_after && (joins || !visit.gathers)) read += swapped(b, Section::kHi);
      if (!(joins && visit.updates_before)) read += swapped(b, Section::kLo);
      read += swapped(b, Section::kM) + swapped(b, Section::kV) + swapped(b, Section::kGradient);
      for (const Section section : kStateSections) written += swapped(b, section);
    }
    if (visit.completes_gradient) written += swapped(b, Section::kGradient);
  }
  if (plan.boundaries_on_swap) {
    traffic.forward_written += plan.swap_boundaries;
    traffic.backward_read += plan.swap_boundaries;
  }
  return traffic;
}

}  // namespace strata
