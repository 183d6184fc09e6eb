#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"

namespace strata {

/// Tokens of one row of training data.
struct Document {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t>
      trained;  ///< same length: 1 where the model learns to predict the token
};

/// What a row of JSONL holds. Other fields may stand beside these and do not count.
enum class RowForm : std::uint8_t {
  kText,        ///< {"text"}
  kCompletion,  ///< {"prompt", "completion"}
  kAlpaca,      ///< {"instruction", "output"}, perhaps "input"
  kMessages,    ///< {"messages": [{"role", "content"}]}; roles: system, user, assistant
  kShareGpt     ///< {"conversations": [{"from", "value"}]}; human or user, gpt or assistant, system
};

struct RowOptions {
  bool train_on_inputs = false;  ///< prompts count too
};

/// {"prompt","completion"} and so on, for people.
std::string_view describe(RowForm form) noexcept;

/// The form of a file, from its first row: the first of messages, conversations, prompt with
/// completion, instruction with output, text that it has.
/// @param where "file.jsonl:1". @throws FormatError when it has none, or is not JSON
RowForm detect_row_form(std::string_view line, const std::string& where);
/// Whether a row has what rows of `form` need, whatever else it has. @throws FormatError if no JSON
bool has_row_form(std::string_view line, RowForm form, const std::string& where);

/// Turns rows of one form into tokens.
///
/// kText: the tokenizer's frame before the text, the text, end_of_document(); all of it counts. A
/// row with an empty text makes no document.
/// kCompletion, kAlpaca: the frame and the prompt, which do not count, then the answer and
/// end_of_document(), which do. Prompt and answer are tokenised apart, as they are when the model
/// answers. Alpaca rows get the two Stanford prompts, ending in "### Response:\n"; "input" may be
/// missing, null or empty.
/// kMessages, kShareGpt: what the chat template renders; the assistant's turns count with the
/// tokens that end them. Nothing is put before or behind.
///
/// A blank line is no row. Errors: null or a number where text belongs (content of tool calls, or
/// in parts, included), a role that is none of those above, a conversation without an assistant
/// turn, a row of another form than the file's; what no JSON may be (bytes that are not UTF-8, zero
/// bytes, one key twice, nesting deeper than 64).
///
/// Immutable: read() may be called on several threads. Keeps references to the tokenizer and the
/// template.
class RowReader {
 public:
  /// @param chat_template for kMessages and kShareGpt; may be null for the others
  RowReader(RowForm form, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
            RowOptions options = {});

  /// Appends the row's tokens to `document`.
  /// @param where "file.jsonl:17", for messages. @throws FormatError that starts with it and names
  /// the field and what to do
  void read(std::string_view line, const std::string& where, Document& document) const;

 private:
  void append_ids(std::span<const std::int32_t> ids, bool trained, Document& document) const;
  void append_text(std::string_view text, const EncodeOptions& options, bool trained,
                   Document& document) const;
  void append_end(Document& document) const;
  void append_answer(std::string_view prompt, std::string_view answer, Document& document) const;
  void append_chat(std::span<const ChatMessage> messages, const std::string& where,
                   Document& document) const;

  RowForm form_;
  const Tokenizer& tokenizer_;
  const ChatTemplate* template_;
  RowOptions options_;
};

}  // namespace strata
