#include "core/text/token_cache.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "core/cache_entry.h"
#include "core/hash.h"
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

json identity(const DataFile& file) {
  const ReadableFile bytes(file.path);
  json result = {{"begin", file.begin}, {"end", file.end}};
  std::uint64_t hash = 0;
  if (bytes.size() <= kHashedWhole) {
    hash = hash_range(bytes, 0, bytes.size());
  } else {
    result["size"] = bytes.size();
    result["changed"] = change_time(file.path);
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

}  // namespace

std::unique_ptr<TokenSource> open_tokens(const TokenRecipe& recipe, const Tokenizer& tokenizer,
                                         const ChatTemplate* chat, const fs::path& cache,
                                         std::function<void(const std::string&)> warn) {
  TokenFileOptions options{.packed_length = recipe.packed_length,
                           .filler = tokenizer.end_of_document(),
                           .description = description_of(recipe, tokenizer),
                           .split_length = recipe.split_length,
                           .warn = std::move(warn)};
  const fs::path directory =
      cache / kTokenEntries / hexadecimal(hash_text(options.description.dump()));
  json& names = options.description["names"] = json::array();
  for (const DataFile& file : recipe.files) names.push_back(fs::absolute(file.path).string());
  const auto make = [recipe, &tokenizer, chat] { return make_reader(recipe, tokenizer, chat); };
  return std::make_unique<TokenFile>(directory, make, std::move(options));
}

}  // namespace strata
