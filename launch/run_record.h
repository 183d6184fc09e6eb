#pragma once

#include <filesystem>
#include <optional>

#include "core/event_file.h"
#include "core/metrics.h"
#include "launch/plot/run_files.h"

namespace strata {

/// What a run leaves beside its model for people and programs: metrics.jsonl, TensorBoard's event
/// file, and run.json. For one rank.
class RunRecord {
 public:
  /// @param directory is there
  /// @param events whether to write the event file
  /// @throws IoError
  RunRecord(const std::filesystem::path& directory, bool events,
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
