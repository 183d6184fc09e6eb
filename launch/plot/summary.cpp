#include "launch/plot/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/units.h"
#include "launch/plot/series.h"

namespace strata::plot {
namespace {

constexpr std::size_t kSlowest = 5;

double drawable_or_zero(double value) {
  const double drawn = drawable(value);
  return std::isnan(drawn) ? 0 : drawn;
}

void add_losses(const MetricsHistory& history, RunSummary& summary) {
  const std::vector<StepMetrics>& steps = history.steps;
  if (!steps.empty() && !std::isnan(drawable(steps.back().loss))) {
    summary.last_loss = steps.back().loss;
  }
  const std::size_t recent = (steps.size() + 19) / 20;
  for (std::size_t i = steps.size() - recent; i < steps.size(); ++i) {
    if (std::isnan(drawable(steps[i].loss))) continue;
    summary.recent_loss += steps[i].loss;
    ++summary.recent_steps;
  }
  if (summary.recent_steps > 0) {
    summary.recent_loss /= static_cast<double>(summary.recent_steps);
  }
  for (const EvaluationMetrics& evaluation : history.evaluations) {
    summary.last_evaluation = evaluation;
    if (std::isnan(drawable(evaluation.loss))) continue;
    if (!summary.best_evaluation || evaluation.loss < summary.best_evaluation->loss) {
      summary.best_evaluation = evaluation;
    }
  }
}

void add_bounds(const std::vector<StepMetrics>& steps, RunSummary& summary) {
  std::map<std::string, BoundShare> shares;
  for (const StepMetrics& step : steps) {
    if (step.bound_by.empty()) continue;
    BoundShare& share = shares[step.bound_by];
    ++share.steps;
    share.fraction += drawable_or_zero(step.bound_fraction);
  }
  for (auto& [lane, share] : shares) {
    share.lane = lane;
    share.fraction /= static_cast<double>(share.steps);
    summary.bounds.push_back(share);
  }
  std::ranges::stable_sort(summary.bounds, std::ranges::greater(), &BoundShare::steps);
}

void add_times(const std::vector<StepMetrics>& steps, RunSummary& summary) {
  const auto seconds_of = [](const StepMetrics& step) { return drawable_or_zero(step.seconds); };
  std::vector<double> seconds;
  for (const StepMetrics& step : steps) seconds.push_back(seconds_of(step));
  if (seconds.size() > 1) seconds.erase(seconds.begin());
  if (!seconds.empty()) {
    const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
    std::ranges::nth_element(seconds, middle);
    summary.median_step_seconds = *middle;
  }
  summary.slowest.resize(std::min(kSlowest, steps.size()));
  std::ranges::partial_sort_copy(steps, summary.slowest, std::ranges::greater(), seconds_of,
                                 seconds_of);
}

}  // namespace

RunSummary summarize(const MetricsHistory& history) {
  RunSummary summary;
  double mfu_seconds = 0;
  for (const StepMetrics& step : history.steps) {
    ++summary.steps;
    summary.skipped += step.skipped ? 1 : 0;
    const double seconds = drawable_or_zero(step.seconds);
    summary.seconds += seconds;
    summary.tokens += static_cast<double>(step.tokens);
    mfu_seconds += drawable_or_zero(step.mfu) * seconds;
    summary.rss_peak_bytes = std::max(summary.rss_peak_bytes, step.rss_peak_bytes);
    summary.swap_read += static_cast<double>(step.swap_bytes_read);
    summary.swap_written += static_cast<double>(step.swap_bytes_written);
    if (step.energy_joules) {
      summary.energy_joules = summary.energy_joules.value_or(0) + *step.energy_joules;
    }
    for (std::size_t i = 0; i < kLanes.size(); ++i) {
      summary.lane_seconds[i] += drawable_or_zero(step.*kLanes[i].seconds);
    }
  }
  if (summary.seconds > 0) summary.mean_mfu = mfu_seconds / summary.seconds;
  add_losses(history, summary);
  add_bounds(history.steps, summary);
  add_times(history.steps, summary);
  return summary;
}

std::string summary_line(const RunSummary& summary) {
  std::string line = fmt::format("{} step{}", summary.steps, summary.steps == 1 ? "" : "s");
  if (summary.tokens > 0) {
    line += fmt::format(", {} tokens in {}", format_count(summary.tokens),
                        format_seconds(std::min(summary.seconds, 1e12)));
  }
  if (summary.last_loss) line += fmt::format(", loss {:.4g}", *summary.last_loss);
  if (summary.last_evaluation) {
    line += fmt::format(", evaluation {:.4g}", summary.last_evaluation->loss);
  }
  if (summary.skipped > 0) line += fmt::format(", {} skipped", summary.skipped);
  return line;
}

}  // namespace strata::plot
