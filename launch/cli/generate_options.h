#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/log.h"
#include "core/text/tokenizer.h"
#include "launch/cli/generator_setup.h"
#include "launch/cli/placement_options.h"
#include "launch/generation/generation_config.h"
#include "launch/generation/request_rows.h"

namespace CLI {
class App;
}

namespace strata::cli {

/// The flags of `strata generate`.
struct GenerateOptions {
  std::filesystem::path model;
  std::optional<std::string> prompt;
  std::filesystem::path prompts;  ///< rows; "-": standard input
  std::filesystem::path out;      ///< empty: standard output
  bool resume = false;
  bool skip_bad = false;
  bool chat = false;           ///< the prompt is what a user says
  std::string chat_template;   ///< a name; empty: the model's
  bool parse_special = false;  ///< special tokens that prompts spell are those tokens
  bool greedy = false;
  /// What flags say over the model's generation_config.json; see read_given().
  RequestOverrides overrides;
  std::vector<std::string> stop_ids;  ///< numbers, or tokens as they are spelled
  BatchOptions batch;
  std::int64_t speculate = 0;   ///< tokens proposed for a text in a pass at most
  std::int64_t max_length = 0;  ///< tokens of a text, its prompt too; 0: as many as are needed
  KeptOptions kept;
  bool no_progress = false;
  std::filesystem::path trace;  ///< of all ranks, for Perfetto; empty: none
  PlacementOptions placement;

  /// Values of flags that may be left out, and what takes those that were not into `overrides`.
  struct {
    std::int64_t max_new_tokens = 0, top_k = 0, seed = 0;
    double temperature = 0, top_p = 0, min_p = 0, repetition_penalty = 0;
    bool log_probabilities = false;
    std::vector<std::function<void(RequestOverrides&)>> take;
  } given;
};

/// Declares the flags; `options` must outlive the parsing.
void add_generate_flags(CLI::App& app, GenerateOptions& options);

/// Those of `strata chat`, which are some of them.
void add_chat_flags(CLI::App& app, GenerateOptions& options);

/// After parsing: fills `overrides`, and refuses what can be refused without a model.
/// @throws UsageError
void check_settings(GenerateOptions& options);
/// The same of all flags of `strata generate`.
void check(GenerateOptions& options);

/// How texts are continued: what the model's files say, warned of where it is not honoured, with
/// the flags over it. @throws UsageError as parse_stop_ids(), FormatError naming file and key
GenerationSettings choose_settings(const GenerateOptions& options, const Tokenizer& tokenizer,
                                   Log& log);

/// The ids of --stop_ids. @throws UsageError for a token that there is not
std::vector<std::int32_t> parse_stop_ids(const std::vector<std::string>& texts,
                                         const Tokenizer& tokenizer);

}  // namespace strata::cli
