#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "core/metrics.h"

namespace strata {

/// TensorBoard's event file of a run: every number of StepMetrics and EvaluationMetrics as a scalar
/// (single precision, as TensorBoard has it) with step and wall time, on its way to the kernel when
/// write() returns.
///
/// Format: TFRecords (length, masked CRC-32C of it, data, masked CRC-32C of that, all
/// little-endian) of Event messages.
class EventWriter {
 public:
  /// Starts `directory`/events.out.tfevents.SECONDS.HOST.PID.strata, and removes such files of
  /// earlier runs there: one directory is one run.
  /// @throws IoError with the path
  explicit EventWriter(const std::filesystem::path& directory);

  /// @throws IoError when it could not be written
  void write(const StepMetrics& metrics);
  void write(const EvaluationMetrics& metrics);
  const std::string& path() const noexcept { return path_; }

 private:
  struct Close {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  void write_record(std::string_view event);

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace strata
