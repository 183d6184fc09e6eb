#include "optimizer/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"

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

/// Insertions, deletions and replacements that turn `a` into `b`.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row[b.size()];
}

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
  const NamedKind* nearest = &kKinds.front();
  for (const NamedKind& known : kKinds) {
    if (known.name == text) return known.kind;
    if (edit_distance(text, known.name) < edit_distance(text, nearest->name)) nearest = &known;
  }
  std::string names;
  for (const NamedKind& known : kKinds) {
    names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", known.name);
  }
  throw UsageError(fmt::format("there is no schedule \"{}\"; did you mean \"{}\"? Known: {}", text,
                               nearest->name, names));
}

std::string_view name(ScheduleKind kind) noexcept {
  for (const NamedKind& known : kKinds) {
    if (known.kind == kind) return known.name;
  }
  return "unknown";
}

}  // namespace strata
