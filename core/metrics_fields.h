#pragma once

// Internal: the one list of what a row of metrics holds, for everything that writes or reads rows.
// Not installed.

#include "core/metrics.h"

namespace strata {

/// Calls visit(key, tag, field) for every field of a step in the order of its line: `key` in
/// metrics.jsonl, `tag` in TensorBoard or nullptr for what is no curve.
template <typename Step, typename Visit>
void visit_step_fields(Step& row, Visit&& visit) {
  visit("step", nullptr, row.step);
  visit("loss", "train/loss", row.loss);
  visit("grad_norm", "train/grad_norm", row.grad_norm);
  visit("learning_rate", "train/learning_rate", row.learning_rate);
  visit("tokens", "train/tokens", row.tokens);
  visit("seconds", "time/step", row.seconds);
  visit("tokens_per_second", "perf/tokens_per_second", row.tokens_per_second);
  visit("mfu", "perf/mfu", row.mfu);
  visit("swap_bytes_read", "swap/read_bytes", row.swap_bytes_read);
  visit("swap_bytes_written", "swap/written_bytes", row.swap_bytes_written);
  visit("seconds_compute", "time/compute", row.seconds_compute);
  visit("seconds_read_wait", "time/read_wait", row.seconds_read_wait);
  visit("seconds_write_wait", "time/write_wait", row.seconds_write_wait);
  visit("seconds_update", "time/update", row.seconds_update);
  visit("seconds_collective", "time/collective", row.seconds_collective);
  visit("seconds_save_wait", "time/save_wait", row.seconds_save_wait);
  visit("bound_by", nullptr, row.bound_by);
  visit("bound_fraction", "perf/bound_fraction", row.bound_fraction);
  visit("rss_peak_bytes", "memory/rss_peak_bytes", row.rss_peak_bytes);
  visit("energy_joules", "perf/energy_joules", row.energy_joules);
  visit("skipped", "train/skipped", row.skipped);
  visit("skipped_steps", "train/skipped_steps", row.skipped_steps);
  visit("loss_scale", "train/loss_scale", row.loss_scale);
}

/// The same for an evaluation.
template <typename Evaluation, typename Visit>
void visit_evaluation_fields(Evaluation& row, Visit&& visit) {
  visit("step", nullptr, row.step);
  visit("eval_loss", "eval/loss", row.loss);
  visit("eval_tokens", "eval/tokens", row.tokens);
}

}  // namespace strata
