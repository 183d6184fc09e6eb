#include <stdexcept>

#include "core/error.h"
#include "core/metrics.h"
#include "tests/fuzz/targets.h"

namespace strata::test {
namespace {

std::string written(const MetricsHistory& history) {
  std::string text;
  for (const StepMetrics& row : history.steps) text += to_json_line(row) + "\n";
  for (const EvaluationMetrics& row : history.evaluations) text += to_json_line(row) + "\n";
  return text;
}

}  // namespace

void fuzz_metrics(std::string_view input) {
  std::vector<std::string> warnings;
  MetricsHistory history;
  try {
    history = parse_metrics(input, "input", warnings);
  } catch (const FormatError&) {
    return;
  }
  // What was accepted survives being written.
  try {
    if (written(parse_metrics(written(history), "written", warnings)) != written(history)) {
      throw std::logic_error("accepted metrics change when they are written");
    }
  } catch (const Error& error) {
    throw std::logic_error(error.what());
  }
}

}  // namespace strata::test
