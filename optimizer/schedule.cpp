#include "optimizer/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/nearest_name.h"

namespace strata {
namespace {

struct NamedKind {
  ScheduleKind kind;
  std::string_view name;
};

constexpr std::array kKinds = {
    NamedKind{ScheduleKind::kConstant, "constant"},
    NamedKind{ScheduleKind::kConstantWithWarmup, "constant_with_warmup"},
    NamedKind{ScheduleKind::kLinear, "linear"},
    NamedKind{ScheduleKind::kCosine, "cosine"},
    NamedKind{ScheduleKind::kInverseSqrt, "inverse_sqrt"},
    NamedKind{ScheduleKind::kWarmupLr, "WarmupLR"},
    NamedKind{ScheduleKind::kWarmupDecayLr, "WarmupDecayLR"},
    NamedKind{ScheduleKind::kWarmupCosineLr, "WarmupCosineLR"},
};

void check_steps(std::string_view field, std::int64_t steps) {
  if (steps < 0) {
    throw UsageError(fmt::format("schedule: {} is {}; choose 0 or more", field, steps));
  }
}

bool ends(ScheduleKind kind) {
  return kind == ScheduleKind::kLinear || kind == ScheduleKind::kCosine ||
         kind == ScheduleKind::kWarmupDecayLr || kind == ScheduleKind::kWarmupCosineLr;
}

double half_wave(double progress) { return 0.5 * (1.0 + std::cos(std::numbers::pi * progress)); }

/// What transformers multiplies the peak by.
double multiplier(const Schedule& schedule, double step) {
  if (schedule.kind == ScheduleKind::kConstant) return 1.0;
  const auto warmup = static_cast<double>(schedule.warmup_steps);
  const auto total = static_cast<double>(schedule.total_steps);
  if (step < warmup) return step / warmup;
  if (schedule.kind == ScheduleKind::kConstantWithWarmup) return 1.0;
  if (schedule.kind == ScheduleKind::kInverseSqrt) {
    const double timescale = warmup == 0.0 ? 10000.0 : warmup;
    return 1.0 / std::sqrt((step + (timescale - warmup)) / timescale);
  }
  const double span = std::max(1.0, total - warmup);
  if (schedule.kind == ScheduleKind::kLinear) return std::max(0.0, (total - step) / span);
  return std::max(0.0, half_wave((step - warmup) / span));
}

/// The learning rate when DeepSpeed's scheduler has made `step` steps; it has made -1 at first.
double deepspeed_rate(const Schedule& schedule, double step) {
  const bool cosine = schedule.kind == ScheduleKind::kWarmupCosineLr;
  if (step < 0.0) return cosine ? 0.0 : schedule.warmup_start;
  const auto warmup = static_cast<double>(std::max<std::int64_t>(2, schedule.warmup_steps));
  const auto total = static_cast<double>(schedule.total_steps);
  const double span = std::max(1.0, total - warmup);
  const double rise = schedule.learning_rate - schedule.warmup_start;
  if (step < warmup) {
    const bool log = schedule.warmup_shape == WarmupShape::kLog;
    const double part = log ? std::log(step + 1.0) / std::log(warmup) : step / warmup;
    return schedule.warmup_start + rise * part;
  }
  if (cosine) {
    const double wave = half_wave(std::min(1.0, (step - warmup + 1.0) / span));
    return schedule.learning_rate * (schedule.cosine_end + (1.0 - schedule.cosine_end) * wave);
  }
  if (schedule.kind == ScheduleKind::kWarmupLr) return schedule.learning_rate;
  return schedule.warmup_start + rise * std::max(0.0, (total - step) / span);
}

}  // namespace

double Schedule::rate(std::int64_t updates_done) const noexcept {
  const auto step = static_cast<double>(updates_done);
  if (is_deepspeed(kind)) return deepspeed_rate(*this, step - 1.0);
  return learning_rate * multiplier(*this, step);
}

void validate(const Schedule& schedule) {
  if (!(schedule.learning_rate >= 0.0 && std::isfinite(schedule.learning_rate))) {
    throw UsageError(
        fmt::format("schedule: learning_rate is {}; choose a finite value of 0 or more",
                    schedule.learning_rate));
  }
  check_steps("warmup_steps", schedule.warmup_steps);
  check_steps("total_steps", schedule.total_steps);
  if (!(schedule.warmup_start >= 0.0 && std::isfinite(schedule.warmup_start))) {
    throw UsageError(fmt::format("schedule: warmup_start is {}; choose a finite value of 0 or more",
                                 schedule.warmup_start));
  }
  if (!(schedule.cosine_end >= 0.0 && schedule.cosine_end <= 1.0)) {
    throw UsageError(
        fmt::format("schedule: cosine_end is {}; choose it from [0, 1]", schedule.cosine_end));
  }
  if (ends(schedule.kind) && schedule.total_steps == 0) {
    throw UsageError(fmt::format("schedule: {} needs total_steps, the length of the whole run",
                                 name(schedule.kind)));
  }
}

std::vector<std::pair<std::string, ScheduleKind>> schedule_kinds() {
  std::vector<std::pair<std::string, ScheduleKind>> kinds;
  for (const NamedKind& known : kKinds) kinds.emplace_back(known.name, known.kind);
  return kinds;
}

ScheduleKind parse_schedule_kind(std::string_view text) {
  std::vector<std::string> names;
  for (const NamedKind& known : kKinds) {
    if (known.name == text) return known.kind;
    names.emplace_back(known.name);
  }
  const std::string nearest = nearest_name(text, names);
  throw UsageError(
      fmt::format("there is no schedule \"{}\"{}; choose one of {}", text,
                  nearest.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", nearest),
                  fmt::join(names, ", ")));
}

std::string_view name(ScheduleKind kind) noexcept {
  for (const NamedKind& known : kKinds) {
    if (known.kind == kind) return known.name;
  }
  return "unknown";
}

}  // namespace strata
