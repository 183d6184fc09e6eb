#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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
  double seconds_save_wait = 0;
  std::string bound_by = {};         ///< "compute", "read", "write", "update" or "collectives"
  double bound_fraction = 0;         ///< the bound's seconds over the step's seconds
  std::uint64_t rss_peak_bytes = 0;  ///< largest of the ranks, since the start
  std::optional<double> energy_joules = {};  ///< where the machine counts it
  bool skipped = false;                      ///< the update was not applied: non-finite gradients
  std::int64_t skipped_steps = 0;            ///< so far, this one included
  std::optional<double> loss_scale = {};     ///< where losses are scaled: with fp16
};

/// The loss on held-out tokens after a step, a row of metrics.jsonl of its own: "step", "eval_loss"
/// and "eval_tokens", as in Hugging Face's log_history.
struct EvaluationMetrics {
  std::int64_t step = 0;    ///< the last step before it
  double loss = 0;          ///< mean over the counted labels, nats per token
  std::int64_t tokens = 0;  ///< of the held-out text, over all ranks
};

/// One JSON object without a line break. Numbers that are not finite become null.
std::string to_json_line(const StepMetrics& metrics);
std::string to_json_line(const EvaluationMetrics& metrics);

/// metrics.jsonl: one object per line, on its way to the kernel when write() returns.
class MetricsWriter {
 public:
  /// Starts with an empty file. @throws IoError with the path when it cannot be opened
  explicit MetricsWriter(std::string path);

  /// @throws IoError when the line could not be written
  void write(const StepMetrics& metrics);
  void write(const EvaluationMetrics& metrics);

 private:
  struct Close {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  void append(const std::string& line);

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

/// What a metrics.jsonl tells, in the order of its steps.
struct MetricsHistory {
  std::vector<StepMetrics> steps;
  std::vector<EvaluationMetrics> evaluations;
};

/// Reads rows as MetricsWriter writes them, from strangers too. null is NaN, unknown keys are
/// ignored, keys other than "step" and "loss" or "eval_loss" may be missing. Where steps begin
/// again, the rows of the earlier attempt at them are dropped. A last line that a crash cut short
/// is left out.
/// @param path for messages
/// @param warnings gets one line for a last line that was left out
/// @throws FormatError with path and line
MetricsHistory parse_metrics(std::string_view text, const std::string& path,
                             std::vector<std::string>& warnings);
/// The same of a file of at most 1 GiB. @throws IoError too
MetricsHistory read_metrics(const std::filesystem::path& file, std::vector<std::string>& warnings);

}  // namespace strata
