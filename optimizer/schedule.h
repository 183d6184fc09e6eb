#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace strata {

enum class ScheduleKind : std::uint8_t {
  kConstant,
  kConstantWithWarmup,
  kLinear,
  kCosine,
  kInverseSqrt,
  kWarmupLr,
  kWarmupDecayLr,
  kWarmupCosineLr,
};

/// Whether it is one of DeepSpeed's, which have a start, a shape and an end of their own.
constexpr bool is_deepspeed(ScheduleKind kind) noexcept { return kind >= ScheduleKind::kWarmupLr; }

/// How a schedule of DeepSpeed rises.
enum class WarmupShape : std::uint8_t { kLog, kLinear };

/// The learning rate as a function of the number of updates done so far. A value type: nothing
/// advances, so resuming needs only the step.
///
/// With s = updates done, W = warmup_steps, T = total_steps, the kinds of get_scheduler() of
/// Hugging Face transformers multiply learning_rate by s / max(1, W) while s < W, and then by
///
///     constant              1, also while s < W (W and T are not used)
///     constant_with_warmup  1 (T is not used)
///     linear                max(0, (T - s) / max(1, T - W))
///     cosine                max(0, (1 + cos(pi p)) / 2), where p = (s - W) / max(1, T - W)
///     inverse_sqrt          1 / sqrt(s / W), with W = 10000 for W = 0 (T is not used)
///
/// The first update of a run has s = 0: with warm-up its learning rate is 0, as in transformers.
/// Beyond T `linear` stays 0; `cosine` rises again, so end the run at T.
///
/// Those of DeepSpeed (runtime/lr_schedules.py), where s counts from -1, so that the first two
/// updates have the lowest rate, and W is at least 2. With r = log(1 + s) / log(W) (kLog) or s / W
/// (kLinear) while s < W, f = warmup_start and L = learning_rate:
///
///     WarmupLR        f + (L - f) r, then L
///     WarmupDecayLR   f + (L - f) r, then f + (L - f) max(0, (T - s) / max(1, T - W))
///     WarmupCosineLR  f + (L - f) r (0 at first), then L (c + (1 - c) (1 + cos(pi p)) / 2), where
///                     p = min(1, (s - W + 1) / max(1, T - W)), c = cosine_end
struct Schedule {
  ScheduleKind kind = ScheduleKind::kConstant;
  double learning_rate = 0.0;  ///< the peak
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;                  ///< of the whole run, warm-up included
  WarmupShape warmup_shape = WarmupShape::kLog;  ///< of DeepSpeed's kinds, as the next two
  double warmup_start = 0.0;                     ///< learning rate that the warm-up starts from
  double cosine_end = 1e-4;                      ///< fraction of the peak that cosine ends at

  /// UpdateStep::learning_rate of the update with UpdateStep::step = updates_done + 1.
  /// @pre updates_done >= 0
  double rate(std::int64_t updates_done) const noexcept;
  float at(std::int64_t updates_done) const noexcept {
    return static_cast<float>(rate(updates_done));
  }
};

/// @throws UsageError naming the field if it is negative, not a number, or missing (T for linear,
/// cosine, WarmupDecayLR, WarmupCosineLR)
void validate(const Schedule& schedule);

/// All kinds by their names in transformers and DeepSpeed.
std::vector<std::pair<std::string, ScheduleKind>> schedule_kinds();

/// The kind called `name` there.
/// @throws UsageError naming the nearest known name, if one is near, and all of them
ScheduleKind parse_schedule_kind(std::string_view name);

std::string_view name(ScheduleKind kind) noexcept;

}  // namespace strata
