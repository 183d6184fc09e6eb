#include "core/metrics.h"

#include <cerrno>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace strata {

std::string to_json_line(const StepMetrics& metrics) {
  nlohmann::ordered_json line;
  line["step"] = metrics.step;
  line["loss"] = metrics.loss;
  line["grad_norm"] = metrics.grad_norm;
  line["learning_rate"] = metrics.learning_rate;
  line["tokens"] = metrics.tokens;
  line["seconds"] = metrics.seconds;
  line["tokens_per_second"] = metrics.tokens_per_second;
  line["mfu"] = metrics.mfu;
  line["swap_bytes_read"] = metrics.swap_bytes_read;
  line["swap_bytes_written"] = metrics.swap_bytes_written;
  line["seconds_compute"] = metrics.seconds_compute;
  line["seconds_read_wait"] = metrics.seconds_read_wait;
  line["seconds_write_wait"] = metrics.seconds_write_wait;
  line["seconds_update"] = metrics.seconds_update;
  line["seconds_collective"] = metrics.seconds_collective;
  line["bound_by"] = metrics.bound_by;
  line["bound_fraction"] = metrics.bound_fraction;
  line["rss_peak_bytes"] = metrics.rss_peak_bytes;
  line["energy_joules"] = nullptr;
  if (metrics.energy_joules) line["energy_joules"] = *metrics.energy_joules;
  line["skipped"] = metrics.skipped;
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

MetricsWriter::MetricsWriter(std::string path, Mode mode) : path_(std::move(path)) {
  file_.reset(std::fopen(path_.c_str(), mode == Mode::kAppend ? "ae" : "we"));
  if (file_ == nullptr) throw IoError("cannot open the metrics file", path_, 0, errno);
}

void MetricsWriter::write(const StepMetrics& metrics) {
  const std::string line = to_json_line(metrics) + "\n";
  const bool written = std::fwrite(line.data(), 1, line.size(), file_.get()) == line.size();
  if (!written || std::fflush(file_.get()) != 0) {
    throw IoError("cannot write the metrics of a step", path_, 0, errno);
  }
}

}  // namespace strata
