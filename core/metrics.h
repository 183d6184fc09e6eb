#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

namespace strata {

/// One step of training as it stands in metrics.jsonl, under these names. Sums over all ranks
/// unless it says otherwise.
struct StepMetrics {
  std::int64_t step = 0;  ///< the first step is 1
  double loss = 0;        ///< mean over the step's counted labels, nats per token
  double grad_norm = 0;   ///< global, before clipping
  double learning_rate = 0;
  std::int64_t tokens = 0;
  double seconds = 0;
  double tokens_per_second = 0;
  double mfu = 0;  ///< model FLOP/s over the machine's measured FLOP/s, in [0, 1]
  std::uint64_t swap_bytes_read = 0;
  std::uint64_t swap_bytes_written = 0;
  // Of the slowest rank.
  double seconds_compute = 0;
  double seconds_read_wait = 0;
  double seconds_write_wait = 0;
  double seconds_update = 0;
  double seconds_collective = 0;
  std::string bound_by = {};         ///< "compute", "read", "write", "update" or "collectives"
  double bound_fraction = 0;         ///< the bound's seconds over the step's seconds
  std::uint64_t rss_peak_bytes = 0;  ///< largest of the ranks, since the start
  std::optional<double> energy_joules = {};  ///< where the machine counts it
  bool skipped = false;                      ///< the update was not applied: non-finite gradients
};

/// One JSON object without a line break. Numbers that are not finite become null.
std::string to_json_line(const StepMetrics& metrics);

/// metrics.jsonl: one object per line, on its way to the kernel when write() returns.
class MetricsWriter {
 public:
  /// Start with an empty file, or go on after the last line of an existing one.
  enum class Mode : std::uint8_t { kReplace, kAppend };
  /// @throws IoError with the path when it cannot be opened
  explicit MetricsWriter(std::string path, Mode mode = Mode::kReplace);

  /// @throws IoError when the line could not be written
  void write(const StepMetrics& metrics);

 private:
  struct Close {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace strata
