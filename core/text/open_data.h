#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/text/chat_template.h"
#include "core/text/dataset.h"
#include "core/text/document_reader.h"
#include "core/text/tokenizer.h"
#include "core/text/training_token.h"

namespace strata {

struct DataOptions {
  std::int64_t sequence_length = 1024;  ///< tokens
  std::uint64_t seed = 0;               ///< of the order of sequences
  /// Part of the bytes, at the end, that is never trained on, where no file to evaluate is named.
  double held_out = 0.05;
  RowOptions rows = {};
  /// Of the model: token shards have no larger ids.
  std::int64_t vocabulary = TrainingToken::kMostIds;
  /// A token sees its own document only. None: for rows, not for texts and token shards.
  std::optional<bool> reset_documents = {};
  std::filesystem::path cache =
      {};  ///< keeps tokens (core/text/token_cache.h); empty: default_cache()
  /// How conversations are written; asked when there are some.
  std::function<ChatTemplate()> chat = {};
  std::function<void(const std::string&)> warn = {};  ///< any thread
};

/// What a run reads.
struct TrainingData {
  std::unique_ptr<ChatTemplate> chat;  ///< of the rows, before what uses it
  std::unique_ptr<Dataset> training;
  std::unique_ptr<TokenSource> evaluation;  ///< null: nothing is held out
  DatasetOptions options;                   ///< of both
  std::uint64_t bytes = 0;                  ///< of the files to train on and to evaluate
  /// Bytes of the files that `evaluation` is made of.
  std::uint64_t evaluation_bytes = 0;
};

/// Opens text, JSONL or token shards to train on (core/text/document_reader.h). Rows other than
/// {"text"} are packed whole; all else is cut into sequences end to end. Returns as soon as there
/// is a sequence; the rest is tokenised in the background. Every rank opens its own.
/// @param tokenizer must outlive the result
/// @throws UsageError if the files cannot be trained on or an option is out of range, FormatError,
/// IoError
TrainingData open_data(std::span<const std::filesystem::path> files,
                       std::span<const std::filesystem::path> evaluation_files,
                       const Tokenizer& tokenizer, const DataOptions& options = {});

/// The same of files that are only evaluated: `training` is null.
TrainingData open_evaluation_data(std::span<const std::filesystem::path> files,
                                  const Tokenizer& tokenizer, const DataOptions& options = {});

}  // namespace strata
