#include "core/text/token_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "core/error.h"
#include "core/hash.h"
#include "core/json_file.h"
#include "core/text/lines.h"
#include "core/text/token_file.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Counts changes of what this code makes of a recipe.
constexpr int kVersion = 1;
constexpr std::uint64_t kHashedWhole = std::uint64_t{64} << 20;
constexpr std::uint64_t kSamples = 64;
constexpr std::uint64_t kSampleBytes = 64 << 10;
constexpr std::size_t kMostEntryBytes = 16 << 20;

std::string hexadecimal(std::uint64_t hash) { return fmt::format("{:016x}", hash); }

json identity(const DataFile& file) {
  const ReadableFile bytes(file.path);
  json result = {{"begin", file.begin}, {"end", file.end}};
  std::uint64_t hash = 0;
  if (bytes.size() <= kHashedWhole) {
    for (std::uint64_t at = 0; at < bytes.size(); at += 1 << 20) {
      hash = hash_text(read_text(bytes, at, std::min<std::uint64_t>(at + (1 << 20), bytes.size())),
                       hash);
    }
  } else {
    struct stat facts {};
    if (::stat(file.path.c_str(), &facts) != 0) {
      throw IoError("cannot be examined", file.path.string(), 0, errno);
    }
    result["size"] = bytes.size();
    result["changed"] = fmt::format("{}.{:09}", facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec);
    for (std::uint64_t i = 0; i < kSamples; ++i) {
      const std::uint64_t at = (bytes.size() - kSampleBytes) / (kSamples - 1) * i;
      hash = hash_text(read_text(bytes, at, at + kSampleBytes), hash);
    }
  }
  result["hash"] = hexadecimal(hash);
  return result;
}

json description_of(const TokenRecipe& recipe, const Tokenizer& tokenizer) {
  json files = json::array();
  for (const DataFile& file : recipe.files) files.push_back(identity(file));
  return {{"version", kVersion},
          {"files", files},
          {"form", static_cast<int>(recipe.form)},
          {"rows", static_cast<int>(recipe.rows)},
          {"train_on_inputs", recipe.row_options.train_on_inputs},
          {"chat_template", recipe.chat_template},
          {"packed_length", recipe.packed_length},
          {"tokenizer", hexadecimal(tokenizer.fingerprint())}};
}

std::unique_ptr<DocumentReader> make_reader(const TokenRecipe& recipe, const Tokenizer& tokenizer,
                                            const ChatTemplate* chat) {
  switch (recipe.form) {
    case DataForm::kText:
      return make_text_reader(recipe.files, tokenizer);
    case DataForm::kRows:
      return make_row_reader(recipe.files, recipe.rows, tokenizer, chat, recipe.row_options);
    case DataForm::kTokens:
      break;
  }
  return make_shard_reader(recipe.files, tokenizer.end_of_document(), recipe.vocabulary);
}

/// Whether a process makes the entry.
bool is_locked(const fs::path& directory) {
  const int lock = open((directory / "lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (lock < 0) return false;
  const bool locked = flock(lock, LOCK_SH | LOCK_NB) != 0;
  close(lock);
  return locked;
}

std::uint64_t bytes_in(const fs::path& directory) {
  std::uint64_t bytes = 0;
  for (const fs::directory_entry& file : fs::directory_iterator(directory)) {
    if (file.is_regular_file()) bytes += file.file_size();
  }
  return bytes;
}

}  // namespace

std::unique_ptr<TokenSource> open_tokens(const TokenRecipe& recipe, const Tokenizer& tokenizer,
                                         const ChatTemplate* chat, const fs::path& cache,
                                         std::function<void(const std::string&)> warn) {
  TokenFileOptions options{.packed_length = recipe.packed_length,
                           .filler = tokenizer.end_of_document(),
                           .description = description_of(recipe, tokenizer),
                           .split_length = recipe.split_length,
                           .warn = std::move(warn)};
  const fs::path directory = cache / "tokens" / hexadecimal(hash_text(options.description.dump()));
  json& names = options.description["names"] = json::array();
  for (const DataFile& file : recipe.files) names.push_back(fs::absolute(file.path).string());
  const auto make = [recipe, &tokenizer, chat] { return make_reader(recipe, tokenizer, chat); };
  return std::make_unique<TokenFile>(directory, make, std::move(options));
}

fs::path default_cache() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0') {
    return fs::path(cache) / "strata";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return fs::path(home) / ".cache" / "strata";
  }
  throw UsageError("--cache: neither XDG_CACHE_HOME nor HOME is set; name a directory");
}

std::vector<CacheEntry> list_cache(const fs::path& cache) {
  std::vector<CacheEntry> entries;
  std::error_code none;
  for (const fs::directory_entry& directory : fs::directory_iterator(cache / "tokens", none)) {
    if (!directory.is_directory()) continue;
    CacheEntry& entry = entries.emplace_back();
    entry.directory = directory.path();
    entry.bytes = bytes_in(entry.directory);
    entry.in_use = is_locked(entry.directory);
    const fs::path facts = entry.directory / "entry.json";
    entry.complete = fs::exists(facts);
    if (!entry.complete) continue;
    try {
      const json read =
          parse_json_object(read_text_file(facts, kMostEntryBytes), facts.string(), 8);
      for (const json& name : read.value("names", json::array())) {
        entry.description += (entry.description.empty() ? "" : ", ") + name.get<std::string>();
      }
    } catch (const std::exception&) {
      entry.complete = false;  // listed so that it can be removed
    }
  }
  std::ranges::sort(entries, {}, &CacheEntry::directory);
  return entries;
}

void remove_entry(const CacheEntry& entry) {
  std::error_code failure;
  fs::remove(entry.directory / "entry.json", failure);  // first: what is left is not complete
  fs::remove_all(entry.directory, failure);
  if (failure) throw IoError("cannot remove", entry.directory.string(), 0, failure.value());
}

}  // namespace strata
