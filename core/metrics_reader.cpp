#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/json_file.h"
#include "core/metrics.h"
#include "core/metrics_fields.h"

namespace strata {
namespace {

using nlohmann::json;

constexpr std::size_t kMostBytes = std::size_t{1} << 30;
constexpr int kMostDepth = 8;
constexpr std::int64_t kMostSteps = 1'000'000'000'000'000;  // exact as a double, halves included

/// One line as fields; `where` is "path:line".
class Row {
 public:
  Row(json row, const std::string& where) : row_(std::move(row)), where_(where) {}

  bool has(const char* key) const { return row_.contains(key); }

  void read(const char* key, double& value) const {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_null() && !found->is_number()) refuse(key, *found, "a number or null");
    value = found->is_null() ? std::numeric_limits<double>::quiet_NaN() : found->get<double>();
  }
  void read(const char* key, std::optional<double>& value) const {
    const json* found = find(key);
    if (found == nullptr || found->is_null()) return;
    double number = 0;
    read(key, number);
    value = number;
  }
  void read(const char* key, std::int64_t& value) const {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_number_unsigned() ||
        found->get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
      refuse(key, *found, "a whole number");
    }
    value = found->get<std::int64_t>();
  }
  void read(const char* key, std::uint64_t& value) const {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_number_unsigned()) refuse(key, *found, "a whole number");
    value = found->get<std::uint64_t>();
  }
  void read(const char* key, bool& value) const {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_boolean()) refuse(key, *found, "true or false");
    value = found->get<bool>();
  }
  void read(const char* key, std::string& value) const {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_string()) refuse(key, *found, "a text");
    value = found->get<std::string>();
  }

 private:
  const json* find(const char* key) const {
    const auto found = row_.find(key);
    return found == row_.end() ? nullptr : &*found;
  }
  [[noreturn]] void refuse(const char* key, const json& value, const char* wanted) const {
    throw FormatError(fmt::format("{}: \"{}\" is {:.60}, not {}", where_, key,
                                  value.dump(-1, ' ', false, json::error_handler_t::replace),
                                  wanted));
  }

  json row_;
  const std::string& where_;
};

template <typename Rows>
void drop_from(Rows& rows, std::int64_t step) {
  while (!rows.empty() && rows.back().step >= step) rows.pop_back();
}

void add_row(const Row& row, const std::string& where, MetricsHistory& history) {
  const auto into = [&row](const char* key, const char*, auto& value) { row.read(key, value); };
  EvaluationMetrics evaluation;
  visit_evaluation_fields(evaluation, into);
  if (!row.has("step")) throw FormatError(where + ": has no \"step\"");
  if (evaluation.step > kMostSteps) {
    throw FormatError(fmt::format("{}: \"step\" is {}, which is too many", where, evaluation.step));
  }
  if (!row.has("loss") && !row.has("eval_loss")) {
    throw FormatError(where + ": has neither \"loss\" nor \"eval_loss\"");
  }
  if (row.has("loss")) {
    StepMetrics step;
    visit_step_fields(step, into);
    drop_from(history.steps, step.step);
    drop_from(history.evaluations, step.step);
    history.steps.push_back(std::move(step));
  }
  if (row.has("eval_loss")) {
    drop_from(history.evaluations, evaluation.step);
    history.evaluations.push_back(evaluation);
  }
}

}  // namespace

MetricsHistory parse_metrics(std::string_view text, const std::string& path,
                             std::vector<std::string>& warnings) {
  MetricsHistory history;
  for (std::int64_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    const bool ended = end != std::string_view::npos;
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(ended ? end + 1 : text.size());
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}:{}", path, number);
    try {
      add_row(Row(parse_json_object(line, where, kMostDepth), where), where, history);
    } catch (const FormatError& error) {
      if (ended) throw;
      warnings.push_back(fmt::format(
          "{}; the last line was cut short, as by a crash, and is left out", error.what()));
    }
  }
  return history;
}

MetricsHistory read_metrics(const std::filesystem::path& file, std::vector<std::string>& warnings) {
  return parse_metrics(read_text_file(file, kMostBytes), file.string(), warnings);
}

}  // namespace strata
