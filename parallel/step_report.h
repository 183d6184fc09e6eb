#pragma once

#include <cstdint>

namespace strata {

/// What one optimizer step did. Sums are over all ranks, times are this rank's.
struct StepReport {
  std::int64_t step = 0;           ///< 1 for the first
  double loss = 0;                 ///< mean over counted labels
  double gradient_norm = 0;        ///< global, unscaled, unclipped; infinite if one was not finite
  double learning_rate = 0;        ///< of this step's update
  std::int64_t tokens = 0;         ///< that went through the model
  bool skipped = false;            ///< no update: gradients were not finite, or no label counted
  std::int64_t skipped_steps = 0;  ///< so far, this one included
  double loss_scale = 0;           ///< of this step; 0: its loss was not scaled
  double seconds = 0;
  std::uint64_t swap_bytes_read = 0;  ///< this rank's, while the step ran
  std::uint64_t swap_bytes_written = 0;
  double cpu_seconds_forward = 0;  ///< of all threads of this process
  double cpu_seconds_backward = 0;
  double seconds_reading = 0;  ///< at least one read was under way
  double seconds_writing = 0;
  double seconds_compute = 0;
  double seconds_read_wait = 0;
  double seconds_write_wait = 0;
  double seconds_update = 0;
  double seconds_collective = 0;
  double seconds_read_beside = 0;  ///< the step stood still for Trainer::read_beside()
};

/// Sum of losses and count of labels of an evaluation, over all ranks.
struct EvaluationReport {
  double loss_sum = 0;
  double labels = 0;
  std::uint64_t swap_bytes_read = 0;  ///< this rank's, those of the update that was due included
  std::uint64_t swap_bytes_written = 0;
  double loss() const noexcept { return labels > 0 ? loss_sum / labels : 0; }
};

}  // namespace strata
