#include "core/text/open_data.h"

#include <fmt/format.h>

#include <utility>

#include "core/cache.h"
#include "core/error.h"
#include "core/text/token_cache.h"

namespace strata {
namespace {

std::uint64_t bytes_of(std::span<const DataFile> files) {
  std::uint64_t bytes = 0;
  for (const DataFile& file : files) bytes += file.end - file.begin;
  return bytes;
}

void refuse_empty(std::span<const DataFile> files) {
  if (bytes_of(files) > 0) return;
  throw UsageError(fmt::format("{} {} no text", files.front().path.string(),
                               files.size() > 1 ? "and the other files have" : "has"));
}

/// The recipe of files of one kind; chooses the chat template where there are conversations.
TokenRecipe recipe_of(std::vector<DataFile> files, const DataOptions& options, TrainingData& data) {
  refuse_empty(files);
  TokenRecipe recipe{
      .files = std::move(files), .row_options = options.rows, .vocabulary = options.vocabulary};
  recipe.form = data_form(recipe.files);
  if (recipe.form != DataForm::kRows) return recipe;
  recipe.rows = first_row_form(recipe.files);
  const bool talks = recipe.rows == RowForm::kMessages || recipe.rows == RowForm::kShareGpt;
  if (talks && !data.chat) data.chat = std::make_unique<ChatTemplate>(options.chat());
  if (talks) recipe.chat_template = data.chat->name();
  (recipe.rows == RowForm::kText ? recipe.split_length : recipe.packed_length) =
      options.sequence_length;
  return recipe;
}

DatasetOptions dataset_options(const TokenRecipe& recipe, const DataOptions& options) {
  return {.sequence_length = options.sequence_length,
          .seed = options.seed,
          .reset_documents = options.reset_documents.value_or(recipe.form == DataForm::kRows)};
}

std::filesystem::path cache_of(const DataOptions& options) {
  return options.cache.empty() ? default_cache() : options.cache;
}

}  // namespace

TrainingData open_data(std::span<const std::filesystem::path> files,
                       std::span<const std::filesystem::path> evaluation_files,
                       const Tokenizer& tokenizer, const DataOptions& options) {
  TrainingData data;
  const std::filesystem::path cache = cache_of(options);
  TokenRecipe training = recipe_of(data_files(files), options, data);
  TokenRecipe evaluation =
      evaluation_files.empty() ? training : recipe_of(data_files(evaluation_files), options, data);
  if (evaluation_files.empty()) {
    evaluation.files = hold_out(training.files, training.form, options.held_out);
  }
  data.options = dataset_options(training, options);
  data.evaluation_bytes = bytes_of(evaluation.files);
  data.bytes = bytes_of(training.files) + data.evaluation_bytes;
  data.training = std::make_unique<Dataset>(
      open_tokens(training, tokenizer, data.chat.get(), cache, options.warn), data.options);
  if (!evaluation.files.empty()) {
    data.evaluation = open_tokens(evaluation, tokenizer, data.chat.get(), cache, options.warn);
  }
  return data;
}

TrainingData open_evaluation_data(std::span<const std::filesystem::path> files,
                                  const Tokenizer& tokenizer, const DataOptions& options) {
  TrainingData data;
  const TokenRecipe recipe = recipe_of(data_files(files), options, data);
  data.options = dataset_options(recipe, options);
  data.bytes = data.evaluation_bytes = bytes_of(recipe.files);
  data.evaluation =
      open_tokens(recipe, tokenizer, data.chat.get(), cache_of(options), options.warn);
  return data;
}

}  // namespace strata
