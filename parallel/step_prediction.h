#pragma once

#include <cstdint>
#include <optional>

#include "parallel/memory_plan.h"
#include "swap/device_profile.h"

namespace strata {

/// What one phase of a step asks of one rank.
struct PhaseLoad {
  double operations = 0;      ///< floating-point, for all micro-batches
  double updated = 0;         ///< bytes of sections and gradients that updates read and write
  double gradient_bytes = 0;  ///< of DRAM, to zero, round and square gradients
  double gathered = 0;        ///< bytes that all-gathers bring here from other ranks
  double reduced = 0;         ///< bytes that leave here to be summed on other ranks
  double read = 0;            ///< bytes of state from swap
  double written = 0;
  double boundaries_read = 0;  ///< bytes of boundary activations from swap
  double boundaries_written = 0;
};

struct StepLoad {
  int micro_batches = 1;
  PhaseLoad forward;
  PhaseLoad backward;
  double swap_read() const noexcept;
  double swap_written() const noexcept;
};

/// The load of a plan, in steady state. @param ranks of the job; with ZeRO 0 the partition has one
StepLoad load_of(const MemoryPlanInput& input, const MemoryPlan& plan, int ranks);
/// The same model and placement with another number of micro-batches: operations and boundaries are
/// in proportion to it, everything else stays.
StepLoad with_micro_batches(const StepLoad& load, int micro_batches);

/// What one rank can do per second, while the other ranks of its node do the same; the drive is
/// what all of them share.
struct StepRates {
  double operations = 0;  ///< of blocks, in the plan's dtype
  double update = 0;      ///< bytes of sections and gradients through the optimizer
  double memory = 0;      ///< bytes of DRAM
  double gather = 0;      ///< bytes from other ranks
  double reduce = 0;      ///< bytes to other ranks
  DeviceProfile drive;    ///< of the node
  int ranks_per_node = 1;
  /// Whether collectives take the cores' time (ranks of one node) or a link's, beside them.
  bool collectives_use_cores = true;
};

/// Seconds of the lanes in one phase. Products, updates, gradients and copies share the cores of a
/// CPU, so their seconds add up; the drive and the link work beside them.
struct PhaseSeconds {
  double compute = 0;
  double update = 0;
  double gradients = 0;
  double collectives = 0;
  bool collectives_use_cores = true;
  double read = 0;   ///< the drive's, if it did nothing else
  double write = 0;  ///< likewise
  double io = 0;     ///< reads and writes together
  double cores() const noexcept;
  double link() const noexcept;
  double total() const noexcept;  ///< the largest of cores, io and link
};

/// The resource that decides a step's time.
enum class Bound : std::uint8_t { kCompute, kUpdate, kCollectives, kRead, kWrite };
const char* name(Bound bound) noexcept;

struct StepSeconds {
  PhaseSeconds forward;
  PhaseSeconds backward;
  double total() const noexcept { return forward.total() + backward.total(); }
  /// If work could move freely between the phases: the larger of all compute and all I/O.
  double balanced() const noexcept;
  Bound bound() const noexcept;
};

/// The bound of a step: per phase the larger of what shares the cores and of I/O, summed. A
/// pipeline that hides everything behind the larger of them reaches it.
/// @pre every rate that the load needs is positive
StepSeconds predict(const StepLoad& load, const StepRates& rates);

/// The fewest micro-batches from which I/O and link are hidden behind the cores in both phases,
/// none if more micro-batches never help (boundaries on a slow drive) or over a million would be
/// needed.
std::optional<int> micro_batches_that_hide_io(const StepLoad& load, const StepRates& rates);
/// The same if work could move freely between the phases.
std::optional<int> micro_batches_that_balance(const StepLoad& load, const StepRates& rates);

}  // namespace strata
