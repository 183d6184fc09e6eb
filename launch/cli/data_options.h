#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/pretrained_model.h"
#include "core/log.h"
#include "core/text/open_data.h"

namespace CLI {
class App;
}  // namespace CLI

namespace strata::cli {

/// What `strata train` and `strata eval` read.
struct DataFlags {
  std::vector<std::filesystem::path> files;
  std::string chat_template;            ///< a name; empty: the model's
  bool train_on_inputs = false;         ///< prompts count in the loss
  std::optional<bool> reset_documents;  ///< none: for rows only
  std::filesystem::path cache;          ///< empty: the user's
};

/// Declares the flags; `flags` must outlive the parsing.
void add_data_flags(CLI::App& app, DataFlags& flags);

/// The flags as open_data() takes them, for a model from a directory, which must outlive the opened
/// data, as its tokenizer must. Warnings go to `log`.
DataOptions make_data_options(const DataFlags& flags, PretrainedModel& model,
                              std::int64_t sequence_length, Log& log);

/// Checks what can be checked without reading. @throws UsageError
void check(const DataFlags& flags);

}  // namespace strata::cli
