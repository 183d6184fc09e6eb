#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"

namespace strata {

struct ChatMessage {
  std::string role;  ///< system, user or assistant
  std::string content;
};

/// Part of a rendered conversation.
struct ChatPart {
  std::string text;
  /// One special token of the template. Everything else is text in which special tokens are not
  /// parsed, what people wrote first of all.
  bool special = false;
  /// What the model is to learn: the assistant's words and the token that ends its turn.
  bool assistant = false;
};

/// What a model directory says of its chats: tokenizer_config.json and chat_template.jinja.
struct ChatFacts {
  std::string jinja = {};  ///< the chat template; empty: there is none
  std::string bos = {}, eos = {};
  std::string source = {};  ///< a path, for messages
};

struct ChatTokens {
  std::string bos, eos;
};

/// Renders conversations as a model's own chat template does, without Jinja: one of a few built-in
/// renderers (chat_template_names()), recognised by the tokenizer's special tokens and the text of
/// the template. Immutable.
///
/// The strings are those of `apply_chat_template`, and so are these of its habits: Qwen2 and 2.5
/// begin with their own system message where there is none; Llama 3.1 and later put a header with
/// two dates there ("26 Jul 2024" is today, as for the template where it knows no date); Qwen3
/// keeps the thoughts of the last answer only; Mistral v3 puts the system message before the last
/// turn if that is the user's, and nowhere if it is the assistant's.
class ChatTemplate {
 public:
  /// @throws FormatError for a role other than system, user and assistant, or an order of turns
  /// that the template does not know; the message does not name a place
  std::vector<ChatPart> render(std::span<const ChatMessage> messages,
                               bool add_generation_prompt) const;

  std::string_view name() const noexcept;

  /// The template of a model. @param name one of chat_template_names(): that one, whatever the
  /// model says; empty: by the template's text, or by the special tokens where there is none.
  /// @throws UsageError when none fits, or the tokenizer lacks the tokens that it needs
  static ChatTemplate choose(const Tokenizer& tokenizer, const ChatFacts& facts,
                             std::string_view name = {});

 private:
  struct Kind;
  friend std::vector<std::string_view> chat_template_names();
  ChatTemplate(const Kind& kind, ChatTokens tokens, std::string system);

  const Kind* kind_;
  ChatTokens tokens_;
  std::string system_;  // where a conversation has none
};

std::vector<std::string_view> chat_template_names();

/// @throws FormatError, IoError
ChatFacts read_chat_facts(const std::filesystem::path& directory);

/// choose() for a model directory.
ChatTemplate read_chat_template(const std::filesystem::path& directory, const Tokenizer& tokenizer,
                                std::string_view name = {});

}  // namespace strata
