#include "core/metrics.h"

#include <cerrno>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/metrics_fields.h"

namespace strata {
namespace {

using Json = nlohmann::ordered_json;

template <typename Value>
Json to_json(const Value& value) {
  return value;
}

Json to_json(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

std::string dump(const Json& line) {
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string to_json_line(const StepMetrics& metrics) {
  Json line;
  visit_step_fields(metrics, [&line](const char* key, const char*, const auto& value) {
    line[key] = to_json(value);
  });
  return dump(line);
}

std::string to_json_line(const EvaluationMetrics& metrics) {
  Json line;
  visit_evaluation_fields(metrics, [&line](const char* key, const char*, const auto& value) {
    line[key] = to_json(value);
  });
  return dump(line);
}

MetricsWriter::MetricsWriter(std::string path) : path_(std::move(path)) {
  file_.reset(std::fopen(path_.c_str(), "we"));
  if (file_ == nullptr) throw IoError("cannot open the metrics file", path_, 0, errno);
}

void MetricsWriter::write(const StepMetrics& metrics) { append(to_json_line(metrics)); }

void MetricsWriter::write(const EvaluationMetrics& metrics) { append(to_json_line(metrics)); }

void MetricsWriter::append(const std::string& line) {
  const std::string ended = line + "\n";
  const bool written = std::fwrite(ended.data(), 1, ended.size(), file_.get()) == ended.size();
  if (!written || std::fflush(file_.get()) != 0) {
    throw IoError("cannot write the metrics of a step", path_, 0, errno);
  }
}

}  // namespace strata
