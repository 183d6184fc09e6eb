#include "launch/generation/request_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_file.h"
#include "core/nearest_name.h"

namespace strata {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32;
constexpr std::int64_t kMostTokens = std::numeric_limits<std::int32_t>::max();
constexpr std::string_view kChatUrl = "/v1/chat/completions";
constexpr std::string_view kCompletionUrl = "/v1/completions";

[[noreturn]] void refuse(const std::string& where, std::string_view key, std::string_view fault) {
  throw FormatError(fmt::format("{}: \"{:.100}\" {}", where, key, fault));
}

/// What a value is, short enough for a message.
std::string shown(const json& value) {
  return fmt::format("{:.60}", value.dump(-1, ' ', true, json::error_handler_t::replace));
}

/// Reads a key of a row into its place. `key` is for messages.
using Take = void (*)(const json& value, const std::string& where, std::string_view key,
                      RequestRow& row);

struct KnownKey {
  std::string_view name;
  Take take;
};

std::string text_of(const json& value, const std::string& where, std::string_view key) {
  if (!value.is_string()) refuse(where, key, fmt::format("is {}, not a string", shown(value)));
  return value.get<std::string>();
}

std::int64_t whole_of(const json& value, const std::string& where, std::string_view key,
                      std::int64_t low, std::int64_t high) {
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() ||
                     value.get<std::uint64_t>() <= static_cast<std::uint64_t>(kMostTokens)) &&
                    value.get<std::int64_t>() >= low && value.get<std::int64_t>() <= high;
  if (!fits) {
    refuse(where, key,
           fmt::format("is {}, not a whole number from {} to {}", shown(value), low, high));
  }
  return value.get<std::int64_t>();
}

double number_of(const json& value, const std::string& where, std::string_view key, double low,
                 double high) {
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  if (!(number >= low && number <= high)) {
    refuse(where, key, fmt::format("is {}, not a number from {} to {}", shown(value), low, high));
  }
  return number;
}

std::vector<std::int32_t> ids_of(const json& list, const std::string& where, std::string_view key) {
  std::vector<std::int32_t> ids;
  for (const json& id : list) {
    ids.push_back(static_cast<std::int32_t>(whole_of(id, where, key, 0, kMostTokens)));
  }
  return ids;
}

// What rows of both kinds may say.

void take_max_tokens(const json& value, const std::string& where, std::string_view key,
                     RequestRow& row) {
  row.overrides.max_tokens = whole_of(value, where, key, 1, kMostTokens);
}
void take_temperature(const json& value, const std::string& where, std::string_view key,
                      RequestRow& row) {
  row.overrides.temperature = number_of(value, where, key, 0, 100);
}
void take_top_k(const json& value, const std::string& where, std::string_view key,
                RequestRow& row) {
  // -1 means all of them to vLLM.
  row.overrides.top_k = std::max<std::int64_t>(0, whole_of(value, where, key, -1, kMostTokens));
}
void take_top_p(const json& value, const std::string& where, std::string_view key,
                RequestRow& row) {
  row.overrides.top_p = number_of(value, where, key, 1e-6, 1);
}
void take_min_p(const json& value, const std::string& where, std::string_view key,
                RequestRow& row) {
  row.overrides.min_p = number_of(value, where, key, 0, 1);
}
void take_repetition_penalty(const json& value, const std::string& where, std::string_view key,
                             RequestRow& row) {
  row.overrides.repetition_penalty = number_of(value, where, key, 0.01, 100);
}
void take_seed(const json& value, const std::string& where, std::string_view key, RequestRow& row) {
  if (!value.is_number_integer()) {
    refuse(where, key, fmt::format("is {}, not a whole number", shown(value)));
  }
  row.overrides.seed = value.is_number_unsigned()
                           ? value.get<std::uint64_t>()
                           : static_cast<std::uint64_t>(value.get<std::int64_t>());
}
void take_stop(const json& value, const std::string& where, std::string_view key, RequestRow& row) {
  const json list = value.is_array() ? value : json::array({value});
  for (const json& one : list) {
    row.overrides.stop.push_back(text_of(one, where, key));
    if (row.overrides.stop.back().empty()) {
      refuse(where, key, "has an empty string, which every text holds; leave it out");
    }
  }
}
void take_stop_ids(const json& value, const std::string& where, std::string_view key,
                   RequestRow& row) {
  if (!value.is_array()) refuse(where, key, fmt::format("is {}, not a list", shown(value)));
  row.overrides.stop_ids = ids_of(value, where, key);
}
void take_log_probabilities(const json& value, const std::string& where, std::string_view key,
                            RequestRow& row) {
  if (value.is_boolean()) {
    row.overrides.log_probabilities = value.get<bool>();
    return;
  }
  if (value != 0) {
    refuse(where, key,
           fmt::format("is {}; there are log-probabilities of the chosen tokens only: use true, "
                       "or 0 in /v1/completions",
                       shown(value)));
  }
  row.overrides.log_probabilities = true;
}
void take_prompt(const json& value, const std::string& where, std::string_view key,
                 RequestRow& row) {
  if (!value.is_array()) {
    row.prompt = text_of(value, where, key);
    return;
  }
  if (value.empty()) refuse(where, key, "is an empty list; it needs a token id at least");
  if (!value.front().is_number()) {
    refuse(where, key, "is a list of prompts; give each a row of its own");
  }
  row.prompt_ids = ids_of(value, where, key);
}

/// "content" of a message: a string, or parts that are text.
std::string content_of(const json& message, const std::string& where, const std::string& place) {
  const json content = message.value("content", json());
  if (!content.is_array()) return text_of(content, where, place + ".content");
  std::string text;
  for (const json& part : content) {
    const bool is_text = part.is_object() && part.value("type", json()) == "text" &&
                         part.contains("text") && part["text"].is_string();
    if (!is_text) {
      refuse(where, place + ".content",
             fmt::format("has the part {}; only {{\"type\": \"text\", \"text\"}} is known",
                         shown(part)));
    }
    text += part["text"].get<std::string>();
  }
  return text;
}

void take_messages(const json& value, const std::string& where, std::string_view key,
                   RequestRow& row) {
  if (!value.is_array() || value.empty()) {
    refuse(where, key, fmt::format("is {}, not a list of messages", shown(value)));
  }
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", key, i);
    if (!value[i].is_object()) {
      refuse(where, place, fmt::format("is {}, not an object", shown(value[i])));
    }
    std::string role = text_of(value[i].value("role", json()), where, place + ".role");
    if (role == "developer") role = "system";  // the newer name
    if (role != "system" && role != "user" && role != "assistant") {
      refuse(where, place + ".role",
             fmt::format("is \"{:.60}\"; known are system, user and assistant", role));
    }
    row.messages.push_back({std::move(role), content_of(value[i], where, place)});
  }
}

// Keys of batches that are refused unless they ask for nothing.

void pass_over(const json&, const std::string&, std::string_view, RequestRow&) {}

/// null, false, 0 and what is empty ask for nothing.
void expect_nothing(const json& value, const std::string& where, std::string_view key,
                    RequestRow&) {
  const bool nothing = value.is_null() || value == false || value == 0 || value == "" ||
                       (value.is_structured() && value.empty());
  if (!nothing) {
    refuse(where, key, fmt::format("is {}; this is not done here: remove it", shown(value)));
  }
}
void expect_one(const json& value, const std::string& where, std::string_view key, RequestRow&) {
  if (!value.is_null() && value != 1) {
    refuse(where, key,
           fmt::format("is {}; a row has one result: repeat it under other ids, with other seeds",
                       shown(value)));
  }
}
void expect_text_format(const json& value, const std::string& where, std::string_view key,
                        RequestRow&) {
  const bool text = value.is_null() || (value.is_object() && value.value("type", json()) == "text");
  if (!text) {
    refuse(where, key, fmt::format("is {}; only {{\"type\": \"text\"}} is known", shown(value)));
  }
}
void take_model(const json& value, const std::string& where, std::string_view key,
                RequestRow& row) {
  row.model = text_of(value, where, key);
}
void take_id(const json& value, const std::string& where, std::string_view key, RequestRow& row) {
  row.id_is_number = value.is_number_integer();
  row.id = row.id_is_number ? value.dump() : text_of(value, where, key);
  if (row.id.empty()) refuse(where, key, "is empty; give each row a name of its own");
}

constexpr KnownKey kOptionKeys[] = {
    {"max_tokens", take_max_tokens},
    {"temperature", take_temperature},
    {"top_k", take_top_k},
    {"top_p", take_top_p},
    {"min_p", take_min_p},
    {"repetition_penalty", take_repetition_penalty},
    {"seed", take_seed},
    {"stop", take_stop},
    {"stop_token_ids", take_stop_ids},
    {"logprobs", take_log_probabilities},
};
constexpr KnownKey kPlainKeys[] = {
    {"id", take_id},
    {"prompt", take_prompt},
    {"messages", take_messages},
};
constexpr KnownKey kBodyKeys[] = {
    {"model", take_model},
    {"max_completion_tokens", take_max_tokens},
    {"max_new_tokens", take_max_tokens},
    {"n", expect_one},
    {"best_of", expect_one},
    {"stream", expect_nothing},
    {"stream_options", expect_nothing},
    {"echo", expect_nothing},
    {"suffix", expect_nothing},
    {"top_logprobs", expect_nothing},
    {"logit_bias", expect_nothing},
    {"frequency_penalty", expect_nothing},
    {"presence_penalty", expect_nothing},
    {"tools", expect_nothing},
    {"functions", expect_nothing},
    {"tool_choice", pass_over},  // means something beside tools only
    {"function_call", pass_over},
    {"parallel_tool_calls", pass_over},
    {"response_format", expect_text_format},
    {"user", pass_over},
    {"metadata", pass_over},
    {"store", pass_over},
    {"service_tier", pass_over},
};
constexpr KnownKey kChatKeys[] = {{"messages", take_messages}};
constexpr KnownKey kCompletionKeys[] = {{"prompt", take_prompt}};

using KnownKeys = std::vector<KnownKey>;

KnownKeys joined(std::span<const KnownKey> left, std::span<const KnownKey> right) {
  KnownKeys keys(left.begin(), left.end());
  keys.insert(keys.end(), right.begin(), right.end());
  return keys;
}

const KnownKeys& plain_keys() {
  static const KnownKeys keys = joined(kPlainKeys, kOptionKeys);
  return keys;
}
const KnownKeys& body_keys(RequestForm form) {
  static const KnownKeys both = joined(kBodyKeys, kOptionKeys);
  static const KnownKeys chat = joined(both, kChatKeys), completion = joined(both, kCompletionKeys);
  return form == RequestForm::kChatBatch ? chat : completion;
}

[[noreturn]] void refuse_unknown(const std::string& where, const std::string& key,
                                 const std::vector<std::string>& names) {
  const std::string nearest = nearest_name(key, names);
  refuse(where, key,
         nearest.empty() ? fmt::format("is not known; known are {}", fmt::join(names, ", "))
                         : fmt::format("is not known; did you mean \"{}\"?", nearest));
}

/// null is what a client writes for what it leaves to the server.
void take_keys(const json& object, const KnownKeys& known, const std::string& where,
               RequestRow& row) {
  for (const auto& [key, value] : object.items()) {
    const auto found = std::ranges::find(known, std::string_view(key), &KnownKey::name);
    if (found == known.end()) {
      std::vector<std::string> names;
      for (const KnownKey& one : known) names.emplace_back(one.name);
      refuse_unknown(where, key, names);
    }
    if (!value.is_null()) found->take(value, where, key, row);
  }
}

void expect_something(const json& object, bool chat, bool text, const std::string& where) {
  const bool messages = chat && object.contains("messages") && !object["messages"].is_null();
  const bool prompt = text && object.contains("prompt") && !object["prompt"].is_null();
  if (messages && prompt) {
    throw FormatError(where + ": has \"prompt\" and \"messages\"; keep one of them");
  }
  if (!messages && !prompt) {
    throw FormatError(fmt::format("{}: has no {}", where,
                                  !chat   ? "\"prompt\""
                                  : !text ? "\"messages\""
                                          : "\"prompt\" and no \"messages\"; add one of them"));
  }
}

RequestRow parse_batch_row(const json& document, const std::string& where) {
  RequestRow row;
  static const std::vector<std::string> kNames = {"custom_id", "method", "url", "body"};
  for (const auto& [key, value] : document.items()) {
    if (std::ranges::find(kNames, key) == kNames.end()) refuse_unknown(where, key, kNames);
  }
  for (const std::string& name : kNames) {
    if (!document.contains(name)) {
      throw FormatError(
          fmt::format("{}: has no \"{}\"; rows of a batch are {{\"custom_id\", "
                      "\"method\", \"url\", \"body\"}}",
                      where, name));
    }
  }
  row.id = text_of(document["custom_id"], where, "custom_id");
  if (row.id.empty()) refuse(where, "custom_id", "is empty; give each row a name of its own");
  if (document["method"] != "POST") refuse(where, "method", "is not \"POST\"");
  const json& url = document["url"];
  if (url != kChatUrl && url != kCompletionUrl) {
    refuse(where, "url",
           fmt::format("is {}; known are {} and {}", shown(url), kChatUrl, kCompletionUrl));
  }
  row.form = url == kChatUrl ? RequestForm::kChatBatch : RequestForm::kCompletionBatch;
  const json& body = document["body"];
  if (!body.is_object()) refuse(where, "body", fmt::format("is {}, not an object", shown(body)));
  take_keys(body, body_keys(row.form), where, row);
  const bool chat = row.form == RequestForm::kChatBatch;
  expect_something(body, chat, !chat, where);
  return row;
}

}  // namespace

RequestRow parse_request_row(std::string_view line, const std::string& where) {
  const json document = parse_json_object(line, where, kMaxDepth);
  if (document.contains("custom_id") || document.contains("body")) {
    return parse_batch_row(document, where);
  }
  RequestRow row;
  take_keys(document, plain_keys(), where, row);
  expect_something(document, true, true, where);
  return row;
}

}  // namespace strata
