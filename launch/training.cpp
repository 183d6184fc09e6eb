#include "launch/training.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "core/ops.h"
#include "core/units.h"

namespace strata {
namespace {

/// The lane that was busy longest.
void name_bound(const StepReport& slowest, StepMetrics& metrics) {
  const std::array<std::pair<const char*, double>, 5> lanes{{
      {"compute", slowest.seconds_compute},
      {"read", slowest.seconds_reading},
      {"write", slowest.seconds_writing},
      {"update", slowest.seconds_update},
      {"collectives", slowest.seconds_collective},
  }};
  const auto longest = std::ranges::max_element(
      lanes, {}, [](const std::pair<const char*, double>& lane) { return lane.second; });
  metrics.bound_by = longest->first;
  metrics.bound_fraction =
      metrics.seconds > 0 ? std::min(1.0, longest->second / metrics.seconds) : 0.0;
}

/// What every rank sends.
struct RankReport {
  StepReport step;
  std::uint64_t rss_peak = 0;
};

}  // namespace

double measure_product_rate(Device& device, Dtype compute) {
  constexpr std::int64_t kSide = 1024;
  const std::size_t bytes = kSide * kSide * size_bytes(compute);
  const Buffer x = device.allocate(bytes);
  const Buffer w = device.allocate(bytes);
  const Buffer y = device.allocate(bytes);
  const auto stream = device.make_stream();
  const auto view = [&](const Buffer& buffer) { return buffer.view(compute, {kSide, kSide}); };
  device.ops().fill_zero(view(x), *stream);
  device.ops().fill_zero(view(w), *stream);
  double best = 0;
  for (int repetition = 0; repetition < 6; ++repetition) {
    const auto begin = std::chrono::steady_clock::now();
    device.ops().linear(view(x), view(w), {}, view(y), *stream);
    stream->synchronize();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 2.0 * kSide * kSide * kSide / seconds.count());
  }
  return best;
}

StepMetricsCollector::StepMetricsCollector(Communicator& communicator, double operations,
                                           double product_rate)
    : communicator_(communicator),
      operations_(communicator.sum(operations)),
      product_rate_(communicator.sum(product_rate)) {}

StepMetrics StepMetricsCollector::collect(const StepReport& report) {
  const RankReport own{report, rss_peak_bytes()};
  std::vector<std::byte> bytes(sizeof(RankReport));
  std::memcpy(bytes.data(), &own, sizeof(RankReport));
  StepMetrics metrics;
  metrics.step = report.step;
  metrics.loss = report.loss;
  metrics.grad_norm = report.gradient_norm;
  metrics.learning_rate = report.learning_rate;
  metrics.tokens = report.tokens;
  metrics.skipped = report.skipped;
  metrics.skipped_steps = report.skipped_steps;
  if (report.loss_scale > 0) metrics.loss_scale = report.loss_scale;
  StepReport slowest = report;
  for (const std::vector<std::byte>& other : communicator_.gather_bytes(bytes)) {
    RankReport rank;
    std::memcpy(&rank, other.data(), sizeof(RankReport));
    const auto keep_largest = [&](double StepReport::*time) {
      slowest.*time = std::max(slowest.*time, rank.step.*time);
    };
    keep_largest(&StepReport::seconds);
    keep_largest(&StepReport::seconds_compute);
    keep_largest(&StepReport::seconds_reading);
    keep_largest(&StepReport::seconds_writing);
    keep_largest(&StepReport::seconds_read_wait);
    keep_largest(&StepReport::seconds_write_wait);
    keep_largest(&StepReport::seconds_update);
    keep_largest(&StepReport::seconds_collective);
    keep_largest(&StepReport::seconds_read_beside);
    metrics.swap_bytes_read += rank.step.swap_bytes_read;
    metrics.swap_bytes_written += rank.step.swap_bytes_written;
    metrics.rss_peak_bytes = std::max(metrics.rss_peak_bytes, rank.rss_peak);
  }
  metrics.seconds = slowest.seconds;
  metrics.seconds_compute = slowest.seconds_compute;
  metrics.seconds_read_wait = slowest.seconds_read_wait;
  metrics.seconds_write_wait = slowest.seconds_write_wait;
  metrics.seconds_update = slowest.seconds_update;
  metrics.seconds_collective = slowest.seconds_collective;
  metrics.seconds_save_wait = slowest.seconds_read_beside;
  metrics.tokens_per_second = static_cast<double>(metrics.tokens) / metrics.seconds;
  metrics.mfu = operations_ / metrics.seconds / product_rate_;
  metrics.energy_joules = energy_.joules_since_last();
  name_bound(slowest, metrics);
  return metrics;
}

std::string step_line(const StepMetrics& m, std::int64_t total_steps) {
  const std::string scale = m.loss_scale ? fmt::format(" scale {}", *m.loss_scale) : "";
  const char* reason = m.grad_norm == 0 ? "no label counts" : "gradients were not finite";
  const std::string skipped =
      m.skipped ? fmt::format(", skipped: {} ({} so far)", reason, m.skipped_steps) : "";
  return fmt::format(
      "step {}/{} loss {:.4f} norm {:.3f}{} lr {:.3e} {:.0f} tok/s MFU {:.0f}% swap {} in {} out, "
      "bound by {} ({:.0f}%){}",
      m.step, total_steps, m.loss, m.grad_norm, scale, m.learning_rate, m.tokens_per_second,
      100 * m.mfu, format_traffic(static_cast<double>(m.swap_bytes_read)),
      format_traffic(static_cast<double>(m.swap_bytes_written)), m.bound_by, 100 * m.bound_fraction,
      skipped);
}

EvaluationReport evaluate_all(Trainer& trainer, const EvaluationPasses& passes) {
  EvaluationReport total;
  for (std::int64_t pass = 0; pass < passes.count(); ++pass) {
    const EvaluationReport report = trainer.evaluate(passes.pass(pass));
    total.loss_sum += report.loss_sum;
    total.labels += report.labels;
    total.swap_bytes_read += report.swap_bytes_read;
    total.swap_bytes_written += report.swap_bytes_written;
  }
  return total;
}

}  // namespace strata
