#include "launch/generation/prompts.h"

#include <span>
#include <utility>

#include "core/error.h"

namespace strata {

PromptEncoder::PromptEncoder(const Tokenizer& tokenizer, std::function<ChatTemplate()> chat,
                             bool parse_special)
    : tokenizer_(tokenizer), make_chat_(std::move(chat)), parse_special_(parse_special) {}

std::vector<std::int32_t> PromptEncoder::encode(const RequestRow& row) {
  if (!row.prompt_ids.empty()) return row.prompt_ids;
  if (row.messages.empty()) {
    return tokenizer_.encode(row.prompt, {.parse_special = parse_special_, .add_special = true});
  }
  if (!chat_) chat_ = make_chat_();
  std::vector<std::int32_t> ids;
  TextStart start = TextStart::kBeginning;
  for (const ChatPart& part : chat_->render(row.messages, true)) {
    tokenizer_.encode(part.text, {.parse_special = part.special, .start = start}, ids);
    start = part.special ? TextStart::kAfterToken : TextStart::kWithin;
  }
  return ids;
}

std::vector<std::int32_t> unknown_ids(const Tokenizer& tokenizer, std::int64_t vocabulary) {
  std::vector<std::int32_t> unknown;
  for (std::int32_t id = 0; id < vocabulary; ++id) {
    try {
      if (id < tokenizer.vocab_size()) {
        tokenizer.decode(std::span(&id, 1), false);
        continue;
      }
    } catch (const Error&) {  // a hole
    }
    unknown.push_back(id);
  }
  return unknown;
}

}  // namespace strata
