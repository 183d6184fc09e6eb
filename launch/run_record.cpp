#include "launch/run_record.h"

namespace strata {

RunRecord::RunRecord(const std::filesystem::path& directory, const std::filesystem::path& events,
                     const plot::RunDescription& description)
    : metrics_((directory / "metrics.jsonl").string()) {
  if (!events.empty()) {
    std::error_code ignored;  // opening the file says what is wrong
    std::filesystem::create_directories(events, ignored);
    events_.emplace(events);
  }
  plot::write_description(description, directory);
}

}  // namespace strata
