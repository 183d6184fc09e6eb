#pragma once

#include <optional>
#include <string>
#include <vector>

#include "parallel/machine_profile.h"
#include "parallel/step_prediction.h"
#include "swap/device_profile.h"

namespace strata {

/// Figures that replace measured ones. Per second, of one node unless said.
struct RateOverrides {
  std::optional<double> read;  ///< bytes from all drives together
  std::optional<double> write;
  std::optional<double> mixed;       ///< bytes read plus written, both at once
  std::optional<double> memory;      ///< bytes of DRAM
  std::optional<double> link;        ///< bytes between ranks, per rank and direction
  std::optional<double> operations;  ///< floating-point operations of one rank
};

/// Where a rate of a prediction comes from.
struct RateOrigin {
  enum class Kind : std::uint8_t { kGiven, kMeasured, kDerived, kAssumed };
  std::string what;  ///< "drive reads", ...
  double per_second = 0;
  bool is_bytes = true;  ///< else floating-point operations
  Kind kind = Kind::kAssumed;
  std::string remedy;  ///< the command that measures it; empty when it was given or measured
};
const char* name(RateOrigin::Kind kind) noexcept;

struct KnownRates {
  StepRates step;
  double memory_read = 0;  ///< bytes a second that a rank's products read from memory
  std::vector<RateOrigin> origins;
  bool any_assumed() const noexcept;
};

/// What is asked for, and what it is asked with.
struct RateInputs {
  MachineProfile machine;
  std::optional<DeviceProfile> drive;  ///< all drives of a node together
  RateOverrides overrides;
  Dtype compute = Dtype::kBf16;
  Dtype weights =
      Dtype::kBf16;  ///< what products multiply by: quantised ones have rates of their own
  int ranks = 1;
  int ranks_per_node = 1;
  bool swaps = true;    ///< whether the drive's rates matter
  bool updates = true;  ///< whether that of updates does
};

/// Rates of one rank among those of its node, from flags, then the saved profiles, then what
/// follows from other figures, then plain assumptions (a small node of the year 2022), each
/// labelled.
KnownRates known_rates(const RateInputs& inputs);

}  // namespace strata
