#pragma once

#include <filesystem>
#include <optional>

#include "core/event_file.h"
#include "core/metrics.h"
#include "launch/plot/run_files.h"

namespace strata {

/// What a run leaves for people and programs: metrics.jsonl and run.json beside its model, and
/// TensorBoard's event file. For one rank.
class RunRecord {
 public:
  /// @param directory is there
  /// @param events directory of the event file, which is made; empty: no event file
  /// @throws IoError
  RunRecord(const std::filesystem::path& directory, const std::filesystem::path& events,
            const plot::RunDescription& description);

  /// On its way to the kernel when it returns. @throws IoError
  void write(const StepMetrics& metrics) { write_row(metrics); }
  void write(const EvaluationMetrics& metrics) { write_row(metrics); }

 private:
  template <typename Row>
  void write_row(const Row& row) {
    metrics_.write(row);
    if (events_) events_->write(row);
  }

  MetricsWriter metrics_;
  std::optional<EventWriter> events_;
};

}  // namespace strata
