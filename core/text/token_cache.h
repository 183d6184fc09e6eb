#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/text/document_reader.h"
#include "core/text/token_source.h"
#include "core/text/training_token.h"

namespace strata {

/// What tokens are made of. Equal recipes on equal files make equal tokens.
struct TokenRecipe {
  std::vector<DataFile> files;
  DataForm form = DataForm::kText;
  RowForm rows = RowForm::kText;  ///< of kRows
  RowOptions row_options = {};
  std::string chat_template = {};  ///< its name, where rows are conversations
  std::int64_t packed_length = 0;  ///< as DocumentPacker takes it
  std::int64_t split_length = 0;   ///< as TokenFileOptions has it; makes no other tokens
  std::int64_t vocabulary = TrainingToken::kMostIds;  ///< of kTokens: larger ids are refused
};

/// The tokens of a recipe: from `cache` where they are kept, else made in the background and kept.
/// Processes that want the same tokens at the same time share one that makes them.
///
/// Kept tokens are found by content: of every file the hash of all bytes, over 64 MiB the size, the
/// time of the last change and the hash of 64 samples; with the tokenizer and the recipe.
/// @param tokenizer,chat used in the background: must outlive the source
/// @param warn told about documents that were cut or are split; any thread
/// @throws IoError if `cache` cannot be used
std::unique_ptr<TokenSource> open_tokens(const TokenRecipe& recipe, const Tokenizer& tokenizer,
                                         const ChatTemplate* chat,
                                         const std::filesystem::path& cache,
                                         std::function<void(const std::string&)> warn);

}  // namespace strata
