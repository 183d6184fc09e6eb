#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "core/cache.h"
#include "core/units.h"
#include "launch/cli/command_line.h"
#include "launch/cli/flags.h"

namespace strata::cli {
namespace {

struct CleanOptions {
  std::filesystem::path cache;
  bool remove = false;
  bool json = false;
};

const char* state_of(const CacheEntry& entry) {
  if (entry.in_use) return "in use";
  return entry.complete ? "complete" : "incomplete";
}

int run_clean(const CleanOptions& options) {
  const std::filesystem::path cache = options.cache.empty() ? default_cache() : options.cache;
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  std::uint64_t kept = 0;
  std::uint64_t freed = 0;
  for (const CacheEntry& entry : list_cache(cache)) {
    const bool remove = options.remove && !entry.in_use;
    if (remove) remove_entry(entry);
    (remove ? freed : kept) += entry.bytes;
    rows.push_back({{"directory", entry.directory.string()},
                    {"bytes", entry.bytes},
                    {"state", state_of(entry)},
                    {"made_of", entry.description},
                    {"removed", remove}});
    if (!options.json) {
      fmt::print("{:<8} {:>10}  {:<10}  {}  {}\n", remove ? "removed" : "kept",
                 format_bytes(entry.bytes), state_of(entry), entry.directory.string(),
                 entry.description);
    }
  }
  if (options.json) {
    fmt::print("{}\n", rows.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  } else {
    fmt::print("{}: {} kept, {} removed{}\n", cache.string(), format_bytes(kept),
               format_bytes(freed), options.remove || rows.empty() ? "" : " (--remove removes)");
  }
  return 0;
}

}  // namespace

void add_clean(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<CleanOptions>();
  CLI::App* command = app.add_subcommand("clean", "List or remove what was kept of earlier runs");
  add_path(*command, "--cache", options->cache, "DIR",
           "where; default: $XDG_CACHE_HOME/strata or ~/.cache/strata");
  add_switch(*command, "--remove", options->remove, "remove all that no run is using");
  add_switch(*command, "--json", options->json, "facts as JSON");
  command->callback([options, &chosen] { chosen = [options] { return run_clean(*options); }; });
}

}  // namespace strata::cli
