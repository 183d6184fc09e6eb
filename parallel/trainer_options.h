#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/dtype.h"
#include "optimizer/adamw.h"
#include "optimizer/lion.h"
#include "optimizer/loss_scale.h"
#include "optimizer/schedule.h"
#include "optimizer/sgd.h"
#include "parallel/block_costs.h"
#include "parallel/plan.h"
#include "swap/io_engine.h"
#include "swap/section.h"
#include "swap/swap_file.h"

namespace strata {

/// Where something rests that has a choice.
enum class Place : std::uint8_t { kAuto, kDram, kSwap };

/// How a model's state is laid out over memory and drives.
struct PlacementRequest {
  std::vector<SwapDirectory> swap;  ///< empty: everything must fit in DRAM
  std::optional<std::uint64_t>
      dram_bytes;  ///< of this rank, all buffers; none: as much as it takes
  std::optional<std::uint64_t> swap_bytes;  ///< of this rank at most; none: what the drives have
  Dtype compute = Dtype::kBf16;             ///< kBf16, kF32 or kF16
  bool residency = true;                    ///< false: only gradients and buffers stay in DRAM
  std::array<Place, kSectionCount> sections{};  ///< by Section, decided by hand
  Place activations = Place::kAuto;
  UpdateTiming update = UpdateTiming::kLazy;
  int stage = 3;            ///< ZeRO, as DeepSpeed numbers it
  int prefetch_depth = -1;  ///< visits read ahead; -1: as many as the memory for them holds
};

/// What the global norm is compared with before an update.
enum class Clip : std::uint8_t {
  kExact,     ///< this step's norm; needs UpdateTiming::kLazy
  kPrevious,  ///< the last step's norm
  kNone,
};

enum class OptimizerKind : std::uint8_t { kAdamW, kAdam, kLion, kSgd };

struct TrainerOptions {
  StepShape shape;  ///< of every batch of step() and evaluate() on this rank
  OptimizerKind optimizer = OptimizerKind::kAdamW;
  AdamWOptions adamw = {};  ///< of kAdamW and kAdam
  LionOptions lion = {};
  SgdOptions sgd = {};
  bool decay_everywhere = false;  ///< weight decay on norms and biases too
  Schedule schedule = {};
  Clip clip = Clip::kExact;
  double max_grad_norm = 1.0;        ///< 0: no clipping
  LossScaleOptions loss_scale = {};  ///< of fp16
  std::uint64_t seed = 42;           ///< of the model's dropout; the same on every rank
  PlacementRequest placement = {};
  IoEngineOptions io = {};
  /// Makes the engine that `io` describes; replace it to put another between trainer and drive.
  std::function<std::unique_ptr<IoEngine>(const IoEngineOptions&)> make_engine = make_io_engine;
  int update_threads = 1;  ///< OpenMP threads of the update lane
};

/// @throws UsageError where options contradict each other
void check(const TrainerOptions& options);

/// The rule that the options choose. @throws UsageError if one of its own is out of range
std::unique_ptr<UpdateRule> make_update_rule(const TrainerOptions& options);

}  // namespace strata
