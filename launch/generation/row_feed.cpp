#include "launch/generation/row_feed.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "launch/generation/stop_text.h"

namespace strata {
namespace {

std::int64_t unix_seconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

std::string name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kError:
      break;
  }
  return "error";
}

}  // namespace

OwnRows::OwnRows(const std::filesystem::path& path, bool skip_bad, const FinishedRows& finished,
                 const Communicator& communicator)
    : reader_(path, skip_bad),
      finished_(finished),
      rank_(communicator.rank()),
      ranks_(communicator.size()) {}

std::optional<NumberedRow> OwnRows::next() {
  while (std::optional<NumberedRow> row = reader_.next()) {
    if (finished_.has(*row)) {
      ++found_;
      continue;
    }
    if (waiting_++ % ranks_ == rank_) return row;
  }
  return std::nullopt;
}

/// A row in flight.
struct RowFeed::Text {
  Text(NumberedRow given, const Tokenizer& tokenizer, std::vector<std::string> stops)
      : row(std::move(given)), stop(tokenizer, std::move(stops)) {}

  NumberedRow row;
  StopText stop;
  std::string text;
  std::int64_t prompt_tokens = 0;
};

RowFeed::RowFeed(Communicator& communicator, const Tokenizer& tokenizer, PromptEncoder& prompts,
                 Options options, Rows rows, ResultsFile* results)
    : communicator_(communicator),
      tokenizer_(tokenizer),
      prompts_(prompts),
      options_(std::move(options)),
      rows_(std::move(rows)),
      results_(results) {}

void RowFeed::finish(const NumberedRow& row, const ResultRow& result) {
  ++own_.rows;
  if (!result.error.empty()) {
    ++own_.errors;
    last_error_ = fmt::format("{}: {}", row.where, result.error);
  }
  lines_ += result_line(row, result, tokenizer_);
}

void show_piece(const std::string& piece) {
  std::fwrite(piece.data(), 1, piece.size(), stdout);
  std::fflush(stdout);
}

std::optional<GenerationRequest> RowFeed::next() {
  while (std::optional<NumberedRow> row = rows_()) {
    GenerationSettings settings = overridden(options_.settings, row->row.overrides);
    GenerationRequest request;
    try {
      request.prompt = prompts_.encode(row->row);
    } catch (const FormatError& error) {
      finish(*row, {.finish_reason = "error", .error = error.what(), .created = unix_seconds()});
      continue;
    }
    const auto prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
    request.max_new_tokens = new_tokens(settings, prompt_tokens).value_or(options_.most_tokens);
    request.sampling = settings.sampling;
    request.stop_ids = std::move(settings.stop_ids);
    request.stream = static_cast<std::uint64_t>(row->number);
    const auto text = std::make_shared<Text>(std::move(*row), tokenizer_, std::move(settings.stop));
    text->prompt_tokens = prompt_tokens;
    request.on_token = [this, text](const SampledToken& token) {
      ++own_.tokens;
      const std::string piece = text->stop.add(token.id);
      text->text += piece;
      if (options_.show && !piece.empty()) options_.show(piece);
      return text->stop.stopped();
    };
    request.on_finish = [this, text](GenerationResult result) {
      const std::string piece = text->stop.finish();
      text->text += piece;
      if (options_.show && !piece.empty()) options_.show(piece);
      // The bytes behind the last whole character may have completed a stop string.
      const FinishReason reason =
          text->stop.stopped() && result.error.empty() ? FinishReason::kStop : result.reason;
      finish(text->row, {.text = std::move(text->text),
                         .ids = std::move(result.ids),
                         .log_probabilities = std::move(result.log_probabilities),
                         .finish_reason = name(reason),
                         .error = std::move(result.error),
                         .prompt_tokens = text->prompt_tokens,
                         .seconds_to_first_token = result.seconds_to_first_token,
                         .seconds = result.seconds,
                         .created = unix_seconds()});
    };
    return request;
  }
  return std::nullopt;
}

void RowFeed::exchange() {
  std::vector<std::byte> message(sizeof(own_) + lines_.size());
  std::memcpy(message.data(), &own_, sizeof(own_));
  std::memcpy(message.data() + sizeof(own_), lines_.data(), lines_.size());
  lines_.clear();
  own_ = {};
  for (const std::vector<std::byte>& part : communicator_.gather_bytes(message)) {
    FeedProgress more;
    std::memcpy(&more, part.data(), sizeof(more));
    progress_.rows += more.rows;
    progress_.errors += more.errors;
    progress_.tokens += more.tokens;
    if (results_ == nullptr) continue;
    results_->append(
        {reinterpret_cast<const char*>(part.data()) + sizeof(more), part.size() - sizeof(more)});
  }
}

}  // namespace strata
