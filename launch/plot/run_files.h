#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/metrics.h"

namespace strata::plot {

/// A run as its directory tells it.
struct Run {
  std::string name;
  MetricsHistory history;
};

/// A drive that a run swapped to.
struct DriveWear {
  std::string device;
  std::optional<double> wear;  ///< of its rated writes, when the run began
};

/// What a run knew when it began: run.json in its directory.
struct RunDescription {
  std::string plan;                                           ///< as `strata plan` prints it
  double planned_step_seconds = 0;                            ///< 0: not known
  std::string planned_bound;                                  ///< a lane
  std::vector<std::pair<std::string, std::string>> settings;  ///< flags and their values
  std::vector<DriveWear> drives;
};

/// Reads metrics.jsonl of each path, which is that file or its directory. Runs are named by the
/// last parts of their paths, or by all of them where those are the same.
/// @param warnings gets a line for every file that a crash cut short
/// @throws UsageError where there is no metrics.jsonl; FormatError
std::vector<Run> read_runs(const std::vector<std::filesystem::path>& paths,
                           std::vector<std::string>& warnings);

/// @throws IoError
void write_description(const RunDescription& description, const std::filesystem::path& directory);
/// Nothing where there is none. @throws FormatError
std::optional<RunDescription> read_description(const std::filesystem::path& directory);

/// Makes `text` the content of `file`: a crash leaves the old file or the new one. @throws IoError
void replace_file(const std::filesystem::path& file, const std::string& text);

}  // namespace strata::plot
