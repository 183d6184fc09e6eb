#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/text/tokenizer.h"
#include "launch/generation/request_reader.h"

namespace strata {

/// What became of a row.
struct ResultRow {
  std::string text = {};                      ///< up to a stop string
  std::vector<std::int32_t> ids = {};         ///< generated
  std::vector<float> log_probabilities = {};  ///< of `ids`; empty: the row did not ask
  std::string finish_reason = "length";       ///< stop, length or error
  std::string error = {};                     ///< what is wrong with the row, and the remedy
  std::int64_t prompt_tokens = 0;
  double seconds_to_first_token = 0;
  double seconds = 0;
  std::int64_t created = 0;  ///< seconds since 1970
};

/// The result as one line of JSON, its end included, in the form of the row it answers:
///
///     {"id", "text", "token_ids", "finish_reason", "prompt_tokens", "output_tokens",
///      "time_to_first_token", "seconds", "logprobs"?, "error"?, "request_id"}
///
/// or what OpenAI's batches give, where an error is a response with the status 400. "request_id"
/// is the row's fingerprint, in hexadecimal behind "req_". Bytes of the text that are not UTF-8
/// become U+FFFD.
std::string result_line(const NumberedRow& row, const ResultRow& result,
                        const Tokenizer& tokenizer);

}  // namespace strata
