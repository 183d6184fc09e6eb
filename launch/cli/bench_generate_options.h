#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace strata::cli {

/// A place for weights, as --tier names it.
struct TierChoice {
  std::string name;
  std::string directory;  ///< empty: memory

  bool operator==(const TierChoice&) const = default;
};

/// What --limit-read slows down.
struct ReadLimit {
  std::string tier;  ///< empty: every drive
  double bytes_per_second = 0;

  bool operator==(const ReadLimit&) const = default;
};

/// What `strata bench generate` was asked for.
struct GenerateBenchOptions {
  std::vector<std::string> models = {"opt-125m"};  ///< presets or model directories
  bool random_weights = false;  ///< fresh values for directories too; presets have no others
  std::vector<TierChoice> tiers = {{.name = "dram", .directory = {}}};
  std::vector<ReadLimit> limits;
  std::vector<std::int64_t> batches = {1, 2, 4, 8, 16, 32, 64, 128, 200, 256};
  std::vector<std::string> weights = {"bf16"};
  std::vector<std::string> kv = {"bf16"};
  std::int64_t prompt_tokens = 512;
  std::int64_t new_tokens = 32;
  std::int64_t rows = 0;              ///< tokens of a pass at most; 0: as the engine likes it
  std::int64_t rounds = 1;            ///< medians
  std::optional<std::uint64_t> dram;  ///< bytes; none: 0.8 of what is available
  std::string power_command;          ///< empty: the processor's counters
  std::filesystem::path prices;       ///< empty: none
  std::filesystem::path svg;          ///< empty: no picture

  /// Of a tier, bytes per second; 0: none.
  double limit_of(const std::string& tier) const;
};

/// Declares the flags of this target; `options` must outlive the parsing.
void add_generate_flags(CLI::App& app, GenerateBenchOptions& options);

/// @throws UsageError for tiers, limits, models and files that are not there
void check(const GenerateBenchOptions& options);

}  // namespace strata::cli
