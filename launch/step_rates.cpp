#include "launch/step_rates.h"

#include <algorithm>

namespace strata {
namespace {

using Kind = RateOrigin::Kind;

// Assumptions, where nothing was measured: a consumer NVMe drive that has left its write cache, two
// channels of DDR4 and eight cores with AVX2.
constexpr double kAssumedRead = 3e9;
constexpr double kAssumedWrite = 1.5e9;
constexpr double kAssumedMixed = 2.5e9;
constexpr double kAssumedMemory = 25e9;
constexpr double kAssumedProducts = 500e9;
constexpr double kAssumedLink = 1.25e9;  // 10 Gbit/s Ethernet

/// Of the products' rate, what a whole block reaches with its norms, attention and activations.
constexpr double kBlockShareOfProducts = 0.8;
/// Of what loops that read and write move, what one gets that only reads: 0.6 to 0.7.
constexpr double kReadShareOfMemory = 0.65;
/// A collective through shared memory reads and writes every byte about twice.
constexpr double kCopiesOfACollective = 4;

class RateChoice {
 public:
  RateChoice(std::string what, bool is_bytes, std::string remedy) {
    origin_.what = std::move(what);
    origin_.is_bytes = is_bytes;
    origin_.remedy = std::move(remedy);
  }
  /// The first figure that is there wins.
  RateChoice& from(Kind kind, std::optional<double> figure) {
    if (origin_.per_second > 0 || !figure || *figure <= 0) return *this;
    origin_.per_second = *figure;
    origin_.kind = kind;
    if (kind == Kind::kGiven || kind == Kind::kMeasured) origin_.remedy.clear();
    return *this;
  }
  double keep(KnownRates& rates) const {
    rates.origins.push_back(origin_);
    return origin_.per_second;
  }

 private:
  RateOrigin origin_;
};

void choose_drive(const RateInputs& inputs, KnownRates& rates) {
  const std::string bench = "strata bench io --swap DIR";
  const auto measured = [&](double DeviceProfile::*member) -> std::optional<double> {
    if (!inputs.drive) return std::nullopt;
    return (*inputs.drive).*member;
  };
  DeviceProfile& drive = rates.step.drive;
  drive.read = RateChoice("drive reads", true, bench)
                   .from(Kind::kGiven, inputs.overrides.read)
                   .from(Kind::kMeasured, measured(&DeviceProfile::read))
                   .from(Kind::kAssumed, kAssumedRead)
                   .keep(rates);
  drive.write = RateChoice("drive writes", true, bench)
                    .from(Kind::kGiven, inputs.overrides.write)
                    .from(Kind::kMeasured, measured(&DeviceProfile::write))
                    .from(Kind::kAssumed, kAssumedWrite)
                    .keep(rates);
  std::optional<double> mixed;
  if (inputs.drive) mixed = inputs.drive->mixed_read + inputs.drive->mixed_write;
  const bool given = inputs.overrides.read || inputs.overrides.write;
  // With one direction given, a mixed rate that was measured on another drive says nothing.
  const double slower = std::min(drive.read, drive.write);
  drive.mixed_read = RateChoice("drive reads + writes", true, bench)
                         .from(Kind::kGiven, inputs.overrides.mixed)
                         .from(Kind::kMeasured, given ? std::nullopt : mixed)
                         .from(Kind::kDerived, given ? std::optional(slower) : std::nullopt)
                         .from(Kind::kAssumed, kAssumedMixed)
                         .keep(rates);
  drive.mixed_write = 0;  // only the sum counts
}

void choose_cores(const RateInputs& inputs, KnownRates& rates) {
  const double node = inputs.ranks_per_node;
  const MachineProfile& machine = inputs.machine;
  const std::string matmul =
      inputs.compute == Dtype::kBf16 ? "strata bench matmul" : "strata bench matmul --compute fp32";
  // Those of the weights at hand, else of plain ones. Whole blocks were measured with plain ones.
  const bool quantized = is_quantized(inputs.weights);
  const double own = machine.products(inputs.compute, inputs.weights);
  const double products = own > 0 ? own : machine.products(inputs.compute);
  const double blocks = quantized && own > 0 ? 0 : machine.blocks(inputs.compute);
  rates.step.operations = RateChoice("operations of a rank", false, matmul)
                              .from(Kind::kGiven, inputs.overrides.operations)
                              .from(Kind::kMeasured, blocks / node)
                              .from(Kind::kDerived, kBlockShareOfProducts * products / node)
                              .from(Kind::kAssumed, kBlockShareOfProducts * kAssumedProducts / node)
                              .keep(rates);
  const double memory = RateChoice("memory of the node", true, "strata bench memory")
                            .from(Kind::kGiven, inputs.overrides.memory)
                            .from(Kind::kMeasured, machine.memory)
                            .from(Kind::kAssumed, kAssumedMemory)
                            .keep(rates);
  rates.step.memory = memory / node;
  if (!inputs.updates) {
    rates.memory_read = RateChoice("reading of memory, of a rank", true, "strata bench memory")
                            .from(Kind::kGiven, inputs.overrides.memory)
                            .from(Kind::kMeasured, machine.memory_read / node)
                            .from(Kind::kDerived, kReadShareOfMemory * memory / node)
                            .keep(rates);
  }
  constexpr double kBytesOfAnUpdate = 26;  // `exact` sections and a bf16 gradient, each way
  if (inputs.updates) {
    rates.step.update = RateChoice("updates of a rank", true, "strata bench adamw")
                            .from(Kind::kMeasured, kBytesOfAnUpdate * machine.updates / node)
                            .from(Kind::kDerived, memory / node)
                            .keep(rates);
  }
  if (inputs.ranks == 1) return;
  const std::string bench = "mpirun -n 2 strata bench collectives";
  const bool one_node = inputs.ranks <= inputs.ranks_per_node;
  const std::optional<double> copies = memory / node / kCopiesOfACollective;
  rates.step.collectives_use_cores = one_node;
  rates.step.gather = RateChoice("all-gather of a rank", true, bench)
                          .from(Kind::kGiven, inputs.overrides.link)
                          .from(Kind::kMeasured, one_node ? machine.gather / node : 0)
                          .from(Kind::kDerived, one_node ? copies : std::nullopt)
                          .from(Kind::kAssumed, kAssumedLink)
                          .keep(rates);
  rates.step.reduce = RateChoice("reduce-scatter of a rank", true, bench)
                          .from(Kind::kGiven, inputs.overrides.link)
                          .from(Kind::kMeasured, one_node ? machine.reduce / node : 0)
                          .from(Kind::kDerived, one_node ? copies : std::nullopt)
                          .from(Kind::kAssumed, kAssumedLink)
                          .keep(rates);
}

}  // namespace

const char* name(RateOrigin::Kind kind) noexcept {
  switch (kind) {
    case Kind::kGiven:
      return "given";
    case Kind::kMeasured:
      return "measured";
    case Kind::kDerived:
      return "derived";
    case Kind::kAssumed:
      return "assumed";
  }
  return "";
}

bool KnownRates::any_assumed() const noexcept {
  return std::ranges::any_of(origins, [](const RateOrigin& origin) {
    return origin.kind == Kind::kAssumed || origin.kind == Kind::kDerived;
  });
}

KnownRates known_rates(const RateInputs& inputs) {
  KnownRates rates;
  rates.step.ranks_per_node = inputs.ranks_per_node;
  if (inputs.swaps) choose_drive(inputs, rates);
  choose_cores(inputs, rates);
  return rates;
}

}  // namespace strata
