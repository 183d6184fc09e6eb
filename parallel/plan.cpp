#include "parallel/plan.h"

#include <algorithm>
#include <set>

#include "parallel/partition.h"

namespace strata {
namespace {

std::vector<int> borrowed_parts(const Model& model, int block) {
  std::set<int> parts;
  for (const Parameter parameter : model.block(block).borrowed()) {
    parts.insert(part_of(model, parameter));
  }
  return {parts.begin(), parts.end()};
}

std::vector<int> own_parts(const Model& model, int block) {
  std::set<int> parts;
  for (const auto& spec : model.block(block).parameters()) {
    parts.insert(part_of(model, spec.get()));
  }
  return {parts.begin(), parts.end()};
}

/// FNV-1a over whatever two ranks could disagree about.
class Hash {
 public:
  void add(std::uint64_t word) {
    for (int byte = 0; byte < 8; ++byte) {
      value_ = (value_ ^ ((word >> (8 * byte)) & 0xff)) * 0x100000001b3ull;
    }
  }
  void add(std::string_view text) {
    for (const char c : text) value_ = (value_ ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325ull;
};

std::uint64_t hash_of(const Model& model, std::span<const PlannedVisit> visits) {
  Hash hash;
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) {
      hash.add(spec->name);
      for (const std::int64_t dim : spec->shape.dims()) hash.add(static_cast<std::uint64_t>(dim));
      hash.add(std::uint64_t{spec->decay} << 2 | std::uint64_t{spec->frozen} << 1 |
               std::uint64_t{spec->row_tiled});
    }
  }
  for (const PlannedVisit& visit : visits) {
    hash.add(static_cast<std::uint64_t>(visit.block) << 8 |
             static_cast<std::uint64_t>(visit.phase) << 4 | std::uint64_t{visit.gathers} << 3 |
             std::uint64_t{visit.updates_before} << 2 | std::uint64_t{visit.updates_after} << 1 |
             std::uint64_t{visit.completes_gradient});
  }
  return hash.value();
}

}  // namespace

Plan::Plan(const Model& model, UpdateTiming timing) {
  const int last = model.block_count() - 1;
  const int lowest = model.lowest_trainable();
  if (lowest > last) {
    throw UsageError("every parameter of the model is frozen: nothing is left to train");
  }
  for (int block = 0; block < last; ++block) {
    visits_.push_back({.block = block, .borrowed = borrowed_parts(model, block)});
  }
  turn_ = last;
  for (int block = last; block >= lowest; --block) {
    const bool reads = block == last || model.block(block).backward_needs_weights();
    visits_.push_back({.block = block,
                       .phase = Phase::kBackward,
                       .gathers = reads,
                       .borrowed = reads ? borrowed_parts(model, block) : std::vector<int>{}});
  }
  // The first visit that gathers a block runs its lazy update; the last of its own backward visit
  // completes its gradient, since borrowers come later in the model and so earlier in this phase.
  std::set<int> seen;
  for (PlannedVisit& visit : visits_) {
    const bool trainable = model.block(visit.block).trainable();
    if (visit.gathers) visit.parts = own_parts(model, visit.block);
    visit.parts.insert(visit.parts.end(), visit.borrowed.begin(), visit.borrowed.end());
    visit.updates_before = timing == UpdateTiming::kLazy && visit.gathers && trainable &&
                           seen.insert(visit.block).second;
    visit.completes_gradient = visit.phase == Phase::kBackward && trainable;
    visit.updates_after = timing == UpdateTiming::kFused && visit.completes_gradient;
  }
  hash_ = hash_of(model, visits_);
}

Plan Plan::forward_only(const Model& model, bool looks_up) {
  Plan plan;
  for (int block = 0; block < model.block_count(); ++block) {
    PlannedVisit visit{.block = block,
                       .gathers = block > 0 || !looks_up,
                       .borrowed = borrowed_parts(model, block)};
    if (visit.gathers) visit.parts = own_parts(model, block);
    visit.parts.insert(visit.parts.end(), visit.borrowed.begin(), visit.borrowed.end());
    plan.visits_.push_back(std::move(visit));
  }
  plan.turn_ = model.block_count() - 1;
  plan.hash_ = hash_of(model, plan.visits_);
  return plan;
}

int Plan::gathers(int part) const {
  int count = 0;
  for (const PlannedVisit& visit : visits_) {
    count += static_cast<int>(std::ranges::count(visit.parts, part));
  }
  return count;
}

}  // namespace strata
