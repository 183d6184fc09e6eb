#include "launch/generation/score_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_file.h"

namespace strata {
namespace {

using nlohmann::ordered_json;

constexpr int kDepth = 32;

std::optional<std::string> text_of(const nlohmann::json& row, const char* key,
                                   const std::string& where) {
  const auto found = row.find(key);
  if (found == row.end()) return std::nullopt;
  if (!found->is_string()) throw FormatError(fmt::format("{}: \"{}\" is not a string", where, key));
  return found->get<std::string>();
}

std::vector<ScorePiece> pieces_of_text(const std::vector<std::int32_t>& ids, std::int64_t most) {
  std::vector<ScorePiece> pieces;
  const auto count = static_cast<std::int64_t>(ids.size());
  for (std::int64_t begin = 0; begin + 1 < count; begin += most - 1) {
    const std::int64_t end = std::min(begin + most, count);
    pieces.push_back({{ids.begin() + begin, ids.begin() + end}, 1});
  }
  return pieces;
}

}  // namespace

ScoreRow parse_score_row(std::string_view line, const std::string& where) {
  const nlohmann::json row = parse_json_object(line, where, kDepth);
  ScoreRow result;
  for (const auto& [key, value] : row.items()) {
    if (key == "id") {
      if (!value.is_string() && !value.is_number_integer()) {
        throw FormatError(where + ": \"id\" is neither a string nor a whole number");
      }
      result.id = value.dump();
    } else if (key != "text" && key != "context" && key != "continuation") {
      throw FormatError(fmt::format(
          "{}: \"{}\" is not known; rows are {{\"text\"}} or {{\"context\", \"continuation\"}}",
          where, key));
    }
  }
  const auto text = text_of(row, "text", where);
  result.context = text_of(row, "context", where);
  const auto continuation = text_of(row, "continuation", where);
  const bool whole = text && !result.context && !continuation;
  if (!whole && !(!text && result.context && continuation)) {
    throw FormatError(
        where + ": a row has \"text\", or \"context\" and \"continuation\", not a part or both");
  }
  result.text = whole ? *text : *continuation;
  return result;
}

std::vector<ScorePiece> score_pieces(const ScoreRow& row, const Tokenizer& tokenizer,
                                     std::int64_t most_tokens) {
  expects(most_tokens >= 2, "a token is scored behind another");
  const EncodeOptions framed{.parse_special = false, .add_special = false};
  const std::vector<std::int32_t>& before = tokenizer.frame().before;
  const auto tokens_of = [&](const std::string& text) {
    std::vector<std::int32_t> ids = before;
    EncodeOptions options = framed;
    options.start = before.empty() ? TextStart::kBeginning : TextStart::kAfterToken;
    tokenizer.encode(text, options, ids);
    return ids;
  };
  if (!row.context) {
    std::vector<ScorePiece> pieces = pieces_of_text(tokens_of(row.text), most_tokens);
    if (pieces.empty()) throw FormatError("the text has no token behind its first one");
    return pieces;
  }
  const std::size_t kept = row.context->find_last_not_of(' ') + 1;
  const std::string context = row.context->substr(0, kept);
  std::vector<std::int32_t> all = tokens_of(*row.context + row.text);
  const auto context_tokens = static_cast<std::int64_t>(tokens_of(context).size());
  auto count = static_cast<std::int64_t>(all.size());
  auto from = std::min(std::max<std::int64_t>(context_tokens, 1), count);
  if (from == count) throw FormatError("the continuation has no token of its own");
  if (count - from > most_tokens - 1) {
    throw FormatError(fmt::format("the continuation has {} tokens, and {} fit the model's context",
                                  count - from, most_tokens - 1));
  }
  if (count > most_tokens) {
    all.erase(all.begin(), all.begin() + (count - most_tokens));
    from -= count - most_tokens;
  }
  return {{std::move(all), from}};
}

void ScoreSum::add(const GenerationResult& result) {
  if (!result.error.empty()) error = result.error;
  for (const ScoredToken& token : result.scores) {
    log_likelihood += static_cast<double>(token.log_probability);
    greedy = greedy && token.likeliest;
    ++tokens;
  }
}

std::string ScoreSum::json(const std::string& id) const {
  ordered_json line{{"id", ordered_json::parse(id)}};
  if (!error.empty()) {
    line["error"] = error;
  } else {
    line["log_likelihood"] = log_likelihood;
    line["tokens"] = tokens;
    line["is_greedy"] = greedy;
    line["perplexity"] = std::exp(-log_likelihood / static_cast<double>(tokens));
  }
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace strata
