#include "launch/generation/result_rows.h"

#include <fmt/format.h>

#include <span>

#include <nlohmann/json.hpp>

namespace strata {
namespace {

using json = nlohmann::ordered_json;

std::string token_text(const Tokenizer& tokenizer, const std::int32_t& id) {
  return tokenizer.decode(std::span(&id, 1), false);
}

json id_of(const NumberedRow& row) {
  if (row.row.id.empty()) return row.number;
  return row.row.id_is_number ? json::parse(row.row.id) : json(row.row.id);
}

json plain(const NumberedRow& row, const ResultRow& result, const std::string& request) {
  json line{{"id", id_of(row)},
            {"text", result.text},
            {"token_ids", result.ids},
            {"finish_reason", result.finish_reason},
            {"prompt_tokens", result.prompt_tokens},
            {"output_tokens", result.ids.size()},
            {"time_to_first_token", result.seconds_to_first_token},
            {"seconds", result.seconds}};
  if (!result.log_probabilities.empty()) line["logprobs"] = result.log_probabilities;
  if (!result.error.empty()) line["error"] = result.error;
  line["request_id"] = request;
  return line;
}

json chat_log_probabilities(const ResultRow& result, const Tokenizer& tokenizer) {
  json content = json::array();
  for (std::size_t i = 0; i < result.log_probabilities.size(); ++i) {
    const std::string text = token_text(tokenizer, result.ids[i]);
    json bytes = json::array();
    for (const char byte : text) bytes.push_back(static_cast<unsigned char>(byte));
    content.push_back({{"token", text},
                       {"logprob", result.log_probabilities[i]},
                       {"bytes", std::move(bytes)},
                       {"top_logprobs", json::array()}});
  }
  return {{"content", std::move(content)}};
}

json completion_log_probabilities(const ResultRow& result, const Tokenizer& tokenizer) {
  json tokens = json::array();
  for (const std::int32_t id : result.ids) tokens.push_back(token_text(tokenizer, id));
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", result.log_probabilities},
          {"top_logprobs", nullptr}};
}

json choice_of(bool chat, const ResultRow& result, const Tokenizer& tokenizer) {
  json choice{{"index", 0}};
  if (chat) {
    choice["message"] = {{"role", "assistant"}, {"content", result.text}};
  } else {
    choice["text"] = result.text;
  }
  choice["logprobs"] = nullptr;
  if (!result.log_probabilities.empty()) {
    choice["logprobs"] = chat ? chat_log_probabilities(result, tokenizer)
                              : completion_log_probabilities(result, tokenizer);
  }
  choice["finish_reason"] = result.finish_reason;
  choice["token_ids"] = result.ids;  // not OpenAI's
  return choice;
}

json body_of(const NumberedRow& row, const ResultRow& result, const Tokenizer& tokenizer,
             const std::string& request) {
  if (!result.error.empty()) {
    return {{"error",
             {{"message", result.error},
              {"type", "invalid_request_error"},
              {"param", nullptr},
              {"code", nullptr}}}};
  }
  const bool chat = row.row.form == RequestForm::kChatBatch;
  const auto output = static_cast<std::int64_t>(result.ids.size());
  return {{"id", (chat ? "chatcmpl-" : "cmpl-") + request},
          {"object", chat ? "chat.completion" : "text_completion"},
          {"created", result.created},
          {"model", row.row.model},
          {"choices", json::array({choice_of(chat, result, tokenizer)})},
          {"usage",
           {{"prompt_tokens", result.prompt_tokens},
            {"completion_tokens", output},
            {"total_tokens", result.prompt_tokens + output}}},
          {"time_to_first_token", result.seconds_to_first_token},  // these two are not OpenAI's
          {"seconds", result.seconds}};
}

}  // namespace

std::string result_line(const NumberedRow& row, const ResultRow& result,
                        const Tokenizer& tokenizer) {
  const std::string request = fmt::format("req_{:016x}", row.fingerprint);
  json line;
  if (row.row.form == RequestForm::kPlain) {
    line = plain(row, result, request);
  } else {
    line = {{"id", fmt::format("batch_{}", request)},
            {"custom_id", row.row.id},
            {"response",
             {{"status_code", result.error.empty() ? 200 : 400},
              {"request_id", request},
              {"body", body_of(row, result, tokenizer, request)}}},
            {"error", nullptr}};
  }
  return line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace strata
