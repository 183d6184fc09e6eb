#include "parallel/step_prediction.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/error.h"

namespace strata {
namespace {

constexpr int kMostMicroBatches = 1 << 20;

double seconds(double amount, double per_second) {
  expects(amount == 0 || per_second > 0, "a prediction needs the rate of everything it predicts");
  return amount == 0 ? 0.0 : amount / per_second;
}

/// What travels between ranks and through memory because a visit gathers, reduces or updates.
class LoadCounter {
 public:
  LoadCounter(const MemoryPlanInput& input, const MemoryPlan& plan, int ranks)
      : in_(input),
        plan_(plan),
        ranks_(ranks),
        gathered_(static_cast<std::size_t>(input.partition.part_count()), false) {}

  void add(const PlannedVisit& visit, PhaseLoad& load) {
    for (const int part : visit.parts) gather(part, load);
    if (visit.updates_before || visit.updates_after) load.updated += update_bytes(visit.block);
    if (visit.phase == Phase::kBackward) reduce(visit, load);
  }

 private:
  double numel(int part) const { return static_cast<double>(in_.partition.part(part).numel()); }
  double shard(int part) const {
    return static_cast<double>(in_.partition.part(part).shard_numel());
  }

  void gather(int part, PhaseLoad& load) {
    // Kept weights are gathered again once a step where an update has changed them.
    const bool first = !gathered_[static_cast<std::size_t>(part)];
    gathered_[static_cast<std::size_t>(part)] = true;
    if (plan_.keep_gathered && !(first && !in_.partition.frozen(part))) return;
    load.gathered +=
        (numel(part) - shard(part)) * static_cast<double>(size_bytes(in_.placement.compute));
  }

  void reduce(const PlannedVisit& visit, PhaseLoad& load) {
    const auto resting = static_cast<double>(
        plan_.layout.element_bytes[static_cast<std::size_t>(Section::kGradient)]);
    const auto gradient = [&](int part) {
      constexpr double kFp32 = 4;
      load.gradient_bytes += kFp32 * numel(part);                  // zeroed
      load.gradient_bytes += (kFp32 + 2 * resting) * shard(part);  // rounded, squared
      const bool replicated = in_.partition.ranks() == 1;
      const double others = static_cast<double>(ranks_ - 1) / ranks_;
      // A sum that stays on every rank travels twice.
      load.reduced += kFp32 * numel(part) * others * (replicated ? 2 : 1);
    };
    gradient(visit.block);
    for (const int part : visit.borrowed) {
      if (!in_.partition.frozen(part)) gradient(part);
    }
  }

  double update_bytes(int block) const {
    double bytes = 0;
    for (const Section section : kStateSections) {
      bytes += 2 * static_cast<double>(plan_.layout.bytes({block, section}));
    }
    return bytes + static_cast<double>(plan_.layout.bytes({block, Section::kGradient}));
  }

  const MemoryPlanInput& in_;
  const MemoryPlan& plan_;
  int ranks_;
  std::vector<bool> gathered_;
};

PhaseSeconds predict(const PhaseLoad& load, const StepRates& rates) {
  PhaseSeconds result;
  result.compute = seconds(load.operations, rates.operations);
  result.update = seconds(load.updated, rates.update);
  result.gradients = seconds(load.gradient_bytes, rates.memory);
  result.collectives = seconds(load.gathered, rates.gather) + seconds(load.reduced, rates.reduce);
  result.collectives_use_cores = rates.collectives_use_cores;
  const double read = (load.read + load.boundaries_read) * rates.ranks_per_node;
  const double written = (load.written + load.boundaries_written) * rates.ranks_per_node;
  result.read = seconds(read, rates.drive.read);
  result.write = seconds(written, rates.drive.write);
  result.io = io_seconds(read, written, rates.drive);
  return result;
}

template <typename Hidden>
std::optional<int> fewest_micro_batches(const StepLoad& load, const StepRates& rates,
                                        const Hidden& hidden) {
  const auto works = [&](int count) {
    return hidden(predict(with_micro_batches(load, count), rates));
  };
  int high = 1;
  while (high < kMostMicroBatches && !works(high)) high *= 2;
  if (!works(high)) return std::nullopt;
  int low = high / 2;  // does not work, or is 0
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    (works(middle) ? high : low) = middle;
  }
  return high;
}

}  // namespace

double StepLoad::swap_read() const noexcept {
  return forward.read + forward.boundaries_read + backward.read + backward.boundaries_read;
}

double StepLoad::swap_written() const noexcept {
  return forward.written + forward.boundaries_written + backward.written +
         backward.boundaries_written;
}

StepLoad load_of(const MemoryPlanInput& input, const MemoryPlan& plan, int ranks) {
  StepLoad load;
  load.micro_batches = input.shape.micro_batches;
  for (const BlockCost& cost : input.costs) {
    load.forward.operations += cost.forward_operations;
    load.backward.operations += cost.backward_operations;
  }
  LoadCounter counter(input, plan, ranks);
  for (const PlannedVisit& visit : input.plan.visits()) {
    counter.add(visit, visit.phase == Phase::kForward ? load.forward : load.backward);
  }
  const SwapTraffic traffic = predict_traffic(input, plan);
  const auto boundaries = plan.boundaries_on_swap ? plan.swap_boundaries : 0;
  load.forward.boundaries_written = static_cast<double>(boundaries);
  load.backward.boundaries_read = static_cast<double>(boundaries);
  load.forward.read = static_cast<double>(traffic.forward_read);
  load.forward.written = static_cast<double>(traffic.forward_written - boundaries);
  load.backward.read = static_cast<double>(traffic.backward_read - boundaries);
  load.backward.written = static_cast<double>(traffic.backward_written);
  return load;
}

StepLoad with_micro_batches(const StepLoad& load, int micro_batches) {
  StepLoad result = load;
  const double factor = static_cast<double>(micro_batches) / load.micro_batches;
  result.micro_batches = micro_batches;
  for (PhaseLoad* phase : {&result.forward, &result.backward}) {
    phase->operations *= factor;
    phase->boundaries_read *= factor;
    phase->boundaries_written *= factor;
  }
  return result;
}

double PhaseSeconds::cores() const noexcept {
  return compute + update + gradients + (collectives_use_cores ? collectives : 0);
}
double PhaseSeconds::link() const noexcept { return collectives_use_cores ? 0 : collectives; }
double PhaseSeconds::total() const noexcept { return std::max({cores(), io, link()}); }

double StepSeconds::balanced() const noexcept {
  return std::max({forward.cores() + backward.cores(), forward.io + backward.io,
                   forward.link() + backward.link()});
}

Bound StepSeconds::bound() const noexcept {
  std::array<double, 5> weight{};
  const auto add = [&weight](Bound bound, double amount) {
    weight[static_cast<std::size_t>(bound)] += amount;
  };
  for (const PhaseSeconds& phase : {forward, backward}) {
    const double total = phase.total();
    if (total == phase.io && total > phase.cores()) {
      add(phase.read >= phase.write ? Bound::kRead : Bound::kWrite, total);
    } else if (total == phase.cores()) {
      add(Bound::kCompute, phase.compute + phase.gradients);
      add(Bound::kUpdate, phase.update);
      if (phase.collectives_use_cores) add(Bound::kCollectives, phase.collectives);
    } else {
      add(Bound::kCollectives, total);
    }
  }
  return static_cast<Bound>(std::ranges::max_element(weight) - weight.begin());
}

const char* name(Bound bound) noexcept {
  switch (bound) {
    case Bound::kCompute:
      return "compute";
    case Bound::kUpdate:
      return "update";
    case Bound::kCollectives:
      return "collectives";
    case Bound::kRead:
      return "read";
    case Bound::kWrite:
      return "write";
  }
  return "";
}

StepSeconds predict(const StepLoad& load, const StepRates& rates) {
  return {predict(load.forward, rates), predict(load.backward, rates)};
}

std::optional<int> micro_batches_that_hide_io(const StepLoad& load, const StepRates& rates) {
  return fewest_micro_batches(load, rates, [](const StepSeconds& step) {
    return step.forward.total() == step.forward.cores() &&
           step.backward.total() == step.backward.cores();
  });
}

std::optional<int> micro_batches_that_balance(const StepLoad& load, const StepRates& rates) {
  return fewest_micro_batches(load, rates, [](const StepSeconds& step) {
    return step.balanced() == step.forward.cores() + step.backward.cores();
  });
}

}  // namespace strata
