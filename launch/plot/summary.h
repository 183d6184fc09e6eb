#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/metrics.h"

namespace strata::plot {

/// A lane of the host and where its seconds stand in a row.
struct Lane {
  const char* name;   ///< as its class in a drawing
  const char* title;  ///< for people
  double StepMetrics::*seconds;
};
inline constexpr std::array<Lane, 5> kLanes = {{
    {"compute", "compute", &StepMetrics::seconds_compute},
    {"update", "update", &StepMetrics::seconds_update},
    {"collective", "collectives", &StepMetrics::seconds_collective},
    {"read_wait", "waiting for reads", &StepMetrics::seconds_read_wait},
    {"write_wait", "waiting for writes", &StepMetrics::seconds_write_wait},
}};

/// How often a lane was the bound of a step.
struct BoundShare {
  std::string lane;
  std::int64_t steps = 0;
  double fraction = 0;  ///< mean share of those steps' seconds that it was busy
};

/// What a whole run comes to. Means and sums leave out what is not finite.
struct RunSummary {
  std::int64_t steps = 0;
  std::int64_t skipped = 0;
  std::optional<double> last_loss;
  double recent_loss = 0;         ///< mean of the last `recent_steps` losses
  std::int64_t recent_steps = 0;  ///< a twentieth of the run
  std::optional<EvaluationMetrics> last_evaluation;
  std::optional<EvaluationMetrics> best_evaluation;
  double tokens = 0;
  double seconds = 0;              ///< of all steps
  double median_step_seconds = 0;  ///< without the first, which warms up, if there are more
  double mean_mfu = 0;             ///< weighted by seconds
  std::uint64_t rss_peak_bytes = 0;
  double swap_read = 0;     ///< bytes
  double swap_written = 0;  ///< bytes
  std::optional<double> energy_joules;
  std::array<double, kLanes.size()> lane_seconds{};  ///< of all steps, in the order of kLanes
  std::vector<BoundShare> bounds;                    ///< the most frequent first
  std::vector<StepMetrics> slowest;                  ///< up to five steps, the slowest first

  double tokens_per_second() const { return seconds > 0 ? tokens / seconds : 0; }
};

RunSummary summarize(const MetricsHistory& history);

/// "200 steps, 819K tokens in 3 min 5 s, loss 2.10, evaluation 2.31".
std::string summary_line(const RunSummary& summary);

}  // namespace strata::plot
