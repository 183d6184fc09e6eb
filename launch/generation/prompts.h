#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"
#include "launch/generation/request_rows.h"

namespace strata {

/// Makes token ids of what rows ask with.
class PromptEncoder {
 public:
  /// @param tokenizer borrowed. @param chat makes the template when a row first has messages
  /// @param parse_special special tokens that a prompt spells are those tokens; messages are data
  /// in any case
  PromptEncoder(const Tokenizer& tokenizer, std::function<ChatTemplate()> chat,
                bool parse_special = false);

  /// A prompt with what the model expects around a text (BOS); messages as the chat template has
  /// them, up to where the assistant begins; ids as they are. May be empty.
  /// @throws FormatError for an order of turns that the template does not know, which names no
  /// place; what `chat` throws
  std::vector<std::int32_t> encode(const RequestRow& row);

 private:
  const Tokenizer& tokenizer_;
  std::function<ChatTemplate()> make_chat_;
  std::optional<ChatTemplate> chat_;
  bool parse_special_;
};

/// The ids below `vocabulary` that are no token, ascending: models have tables longer than their
/// tokenizers, and tokenizers have holes.
std::vector<std::int32_t> unknown_ids(const Tokenizer& tokenizer, std::int64_t vocabulary);

}  // namespace strata
