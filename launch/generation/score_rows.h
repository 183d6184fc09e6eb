#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"
#include "parallel/text_generation.h"

namespace strata {

/// A text whose likelihood is asked for: all of it, or of what continues a context.
struct ScoreRow {
  std::string id = {};  ///< as JSON; empty: the row has none
  std::optional<std::string> context = {};
  std::string text = {};  ///< the continuation where there is a context
};

/// Reads one line: {"text"} or {"context", "continuation"}, with an "id" as wanted.
/// @throws FormatError that starts with `where` and names the key
ScoreRow parse_score_row(std::string_view line, const std::string& where);

/// Tokens of which some are scored.
struct ScorePiece {
  std::vector<std::int32_t> ids = {};
  std::int64_t score_from = 1;
};

/// A row cut into what fits `most_tokens`. Spaces at the end of a context belong to the
/// continuation, and both are made tokens of together, as evaluation harnesses do. A text gets what
/// the model expects before one; without that its first token is not scored. Of a text that is too
/// long every piece begins with the last token of the one before; of a context, the beginning is
/// left out.
/// @throws FormatError without a place for a row of which nothing can be scored
std::vector<ScorePiece> score_pieces(const ScoreRow& row, const Tokenizer& tokenizer,
                                     std::int64_t most_tokens);

/// What a row's pieces came to.
struct ScoreSum {
  double log_likelihood = 0;
  std::int64_t tokens = 0;  ///< scored
  bool greedy = true;       ///< whether each is the likeliest
  std::string error = {};

  void add(const GenerationResult& result);
  /// One line: {"id", "log_likelihood", "tokens", "is_greedy", "perplexity"} or {"id", "error"}.
  std::string json(const std::string& id) const;
};

}  // namespace strata
