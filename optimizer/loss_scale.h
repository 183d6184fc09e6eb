#pragma once

#include <cstdint>

namespace strata {

/// How losses are scaled where activations and gradients are fp16, with DeepSpeed's defaults.
struct LossScaleOptions {
  double loss_scale = 0;                  ///< of every step; 0: dynamic, as the others say
  std::int64_t initial_scale_power = 16;  ///< the first scale is 2 to this power
  std::int64_t window = 1000;             ///< steps without an overflow before the scale doubles
  std::int64_t hysteresis = 2;            ///< overflows before the scale halves
  /// Whether a step without an overflow restores the hysteresis, or only one that doubles the
  /// scale.
  bool consecutive_hysteresis = false;
  double min_loss_scale = 1;
};

/// What the loss of each step is multiplied by, so that small gradients do not vanish in fp16:
/// DeepSpeed's DynamicLossScaler. The same on every rank, since it follows from what all ranks
/// agree on.
///
/// The n-th overflow (n = hysteresis) and each one after it halve the scale, down to the minimum.
/// The first step of those that have a multiple of `window` clean ones before them, back to the
/// last overflow, doubles it if it is clean too, and the hysteresis is whole again.
class LossScaler {
 public:
  /// @throws UsageError if an option is out of range
  explicit LossScaler(const LossScaleOptions& options);

  /// Of the step that comes.
  double scale() const noexcept { return scale_; }
  /// Takes the outcome of a step into account. A fixed scale stays.
  /// @throws Error if gradients overflow at the smallest scale
  void finish_step(bool overflowed);

 private:
  void reduce();

  LossScaleOptions options_;
  double scale_;
  std::int64_t overflows_left_;   // until one of them halves the scale: 1 is the next
  std::int64_t clean_steps_ = 0;  // since the last overflow
};

}  // namespace strata
