#include "launch/run_record.h"

namespace strata {

RunRecord::RunRecord(const std::filesystem::path& directory, bool events,
                     const plot::RunDescription& description)
    : metrics_((directory / "metrics.jsonl").string()) {
  if (events) events_.emplace(directory);
  plot::write_description(description, directory);
}

}  // namespace strata
