#pragma once

#include <cstdint>
#include <string_view>

namespace strata {

enum class ScheduleKind : std::uint8_t { kConstant, kConstantWithWarmup, kLinear, kCosine };

/// The learning rate as a function of the number of updates done so far: that of get_scheduler() of
/// Hugging Face transformers. A value type: nothing advances, so resuming needs only the step.
///
/// With s = updates done, W = warmup_steps, T = total_steps, the learning rate is multiplied by
///
///     constant              1 (W and T are not used)
///     constant_with_warmup  s / max(1, W) while s < W, then 1 (T is not used)
///     linear                s / max(1, W) while s < W, then max(0, (T - s) / max(1, T - W))
///     cosine                s / max(1, W) while s < W, then max(0, (1 + cos(pi p)) / 2), where
///                           p = (s - W) / max(1, T - W)
///
/// The first update of a run has s = 0: with warm-up its learning rate is 0, as in transformers.
/// Beyond T `linear` stays 0; `cosine` rises again, so end the run at T.
struct Schedule {
  ScheduleKind kind = ScheduleKind::kConstant;
  double learning_rate = 0.0;  ///< the peak
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;  ///< of the whole run, warm-up included

  /// @pre updates_done >= 0
  double multiplier(std::int64_t updates_done) const noexcept;

  /// UpdateStep::learning_rate of the update with UpdateStep::step = updates_done + 1.
  float at(std::int64_t updates_done) const noexcept {
    return static_cast<float>(learning_rate * multiplier(updates_done));
  }
};

/// @throws UsageError naming the field if it is negative, not a number, or missing (T for linear,
/// cosine)
void validate(const Schedule& schedule);

/// The kind called `name` in transformers: "constant", "constant_with_warmup", "linear" or
/// "cosine".
/// @throws UsageError naming the nearest known name, if one is near, and all of them
ScheduleKind parse_schedule_kind(std::string_view name);

std::string_view name(ScheduleKind kind) noexcept;

}  // namespace strata
