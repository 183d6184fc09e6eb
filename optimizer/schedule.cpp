#include "optimizer/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

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
};

void check_steps(std::string_view field, std::int64_t steps) {
  if (steps < 0) {
    throw UsageError(fmt::format("schedule: {} is {}; choose 0 or more", field, steps));
  }
}

}  // namespace

double Schedule::multiplier(std::int64_t updates_done) const noexcept {
  if (kind == ScheduleKind::kConstant) return 1.0;
  const auto step = static_cast<double>(updates_done);
  const auto warmup = static_cast<double>(warmup_steps);
  const auto total = static_cast<double>(total_steps);
  if (updates_done < warmup_steps) return step / std::max(1.0, warmup);
  if (kind == ScheduleKind::kConstantWithWarmup) return 1.0;
  const double span = std::max(1.0, total - warmup);
  if (kind == ScheduleKind::kLinear) return std::max(0.0, (total - step) / span);
  const double progress = (step - warmup) / span;
  return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

void validate(const Schedule& schedule) {
  if (!(schedule.learning_rate >= 0.0 && std::isfinite(schedule.learning_rate))) {
    throw UsageError(
        fmt::format("schedule: learning_rate is {}; choose a finite value of 0 or more",
                    schedule.learning_rate));
  }
  check_steps("warmup_steps", schedule.warmup_steps);
  check_steps("total_steps", schedule.total_steps);
  const bool decays =
      schedule.kind == ScheduleKind::kLinear || schedule.kind == ScheduleKind::kCosine;
  if (decays && schedule.total_steps == 0) {
    throw UsageError(fmt::format("schedule: {} needs total_steps, the length of the whole run",
                                 name(schedule.kind)));
  }
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
