#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/model/sampler.h"
#include "core/text/tokenizer.h"
#include "launch/generation/request_rows.h"

namespace strata {

/// How a text is continued: what the model's files say, what flags say over that, and what a row
/// says over both.
struct GenerationSettings {
  /// With do_sample false it is greedy, and the fields that only count in sampling wait for a flag
  /// or a row that samples.
  SamplingOptions sampling = {};
  std::vector<std::int32_t> stop_ids = {};
  std::vector<std::string> stop = {};
  std::optional<std::int64_t> max_new_tokens = {};
  std::optional<std::int64_t> max_length = {};  ///< tokens, the prompt's too
};

/// What a model directory says.
struct GenerationConfig {
  GenerationSettings settings = {};
  /// One line for each setting that is known and not honoured.
  std::vector<std::string> warnings = {};
};

/// Reads generation_config.json as transformers does: what it does not say has the defaults there
/// (greedy; where it samples, temperature 1, top_k 50, top_p 1). Where there is no such file, the
/// same keys of config.json count. Ids that end a text are "eos_token_id" of the one or the other,
/// else the tokenizer's end of documents.
/// @throws FormatError naming file and key, IoError
GenerationConfig read_generation_config(const std::filesystem::path& directory,
                                        const Tokenizer& tokenizer);

/// `settings` with what `overrides` says over them. Temperature 0 means greedy; a temperature above
/// that, top_k, top_p and min_p mean sampling. Stops are added.
GenerationSettings overridden(GenerationSettings settings, const RequestOverrides& overrides);

/// How many tokens to generate behind a prompt. None: nothing says so.
std::optional<std::int64_t> new_tokens(const GenerationSettings& settings,
                                       std::int64_t prompt_tokens);

/// "temperature 0.7, top-k 50, top-p 0.9, repetition penalty 1.1; seed 0; ends at <|im_end|>", for
/// people.
std::string describe(const GenerationSettings& settings, const Tokenizer& tokenizer);

}  // namespace strata
