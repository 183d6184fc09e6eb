#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/chat_template.h"

namespace strata {

/// What a line of a file of requests is, and so what its result looks like.
enum class RequestForm : std::uint8_t {
  kPlain,            ///< {"id"?, "prompt" | "messages", ...}
  kChatBatch,        ///< OpenAI batch: {"custom_id", "method", "url", "body"}, /v1/chat/completions
  kCompletionBatch,  ///< the same for /v1/completions
};

/// What a row says for itself; none: as flags and model say.
struct RequestOverrides {
  std::optional<std::int64_t> max_tokens = {};
  std::optional<double> temperature = {};  ///< 0: the likeliest token
  std::optional<std::int64_t> top_k = {};
  std::optional<double> top_p = {};
  std::optional<double> min_p = {};
  std::optional<double> repetition_penalty = {};
  std::optional<std::uint64_t> seed = {};
  std::optional<bool> log_probabilities = {};
  std::vector<std::string> stop = {};  ///< beside those of flags and model
  std::vector<std::int32_t> stop_ids = {};
};

/// One text to continue, as somebody asks for it. Exactly one of prompt, prompt_ids and messages
/// counts: messages where there are some, else prompt_ids where there are some, else the prompt,
/// which may be empty.
struct RequestRow {
  RequestForm form = RequestForm::kPlain;
  std::string id = {};        ///< empty: the row has none
  bool id_is_number = false;  ///< as it was written
  std::string model = {};     ///< of a batch; what it names is not looked at
  std::string prompt = {};
  std::vector<std::int32_t> prompt_ids = {};
  std::vector<ChatMessage> messages = {};
  RequestOverrides overrides = {};
};

/// Reads one line. It may be hostile: valid UTF-8, no zero byte, nesting at most 32, no key twice
/// in one object. A row with "custom_id" or "body" is one of a batch. Keys of a batch that ask for
/// what is not done (n above 1, streams, tools, penalties other than 0) are refused; those that
/// change nothing (user, metadata) are passed over.
/// @throws FormatError that starts with `where`, names the key and says what to do; for a key that
/// is not known, with the nearest name
RequestRow parse_request_row(std::string_view line, const std::string& where);

}  // namespace strata
