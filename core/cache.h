#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace strata {

/// $XDG_CACHE_HOME/strata, or .cache/strata in the home directory.
/// @throws UsageError when the environment names neither
std::filesystem::path default_cache();

/// One directory of the cache: tokens (core/text/token_cache.h) or quantised weights
/// (checkpoint/quantized_weights.h).
struct CacheEntry {
  std::filesystem::path directory;
  std::uint64_t bytes = 0;
  bool complete = false;
  bool in_use = false;      ///< a run is making it, or reads weights from it
  std::string description;  ///< for people: what it was made of
};
/// What `cache` holds, an empty list if there is none.
std::vector<CacheEntry> list_cache(const std::filesystem::path& cache);
/// Removes an entry with its files. @throws IoError
void remove_entry(const CacheEntry& entry);

}  // namespace strata
