#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "launch/plot/run_files.h"

namespace strata::plot {

/// A finished run as one HTML page without scripts that refers to nothing outside: its figures,
/// what bound it, its lanes, its diagrams, its plan and settings.
/// @param description nothing: the page has no plan and no settings
std::string make_report(const Run& run, const std::optional<RunDescription>& description);

/// Writes the report of the run in `directory` to `file`.
/// @param warnings as read_runs()
/// @throws UsageError, FormatError, IoError
void write_report(const std::filesystem::path& directory, const std::filesystem::path& file,
                  std::vector<std::string>& warnings);

}  // namespace strata::plot
