#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_file.h"
#include "core/text/tokenizer.h"

namespace strata {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::size_t kMaxFileBytes = 256 << 20;
constexpr int kMaxDepth = 32;

json read_json(const fs::path& file) {
  return parse_json_object(read_text_file(file, kMaxFileBytes), file.string(), kMaxDepth);
}

/// tokenizer_config.json of a directory; empty if there is none.
json read_settings(const fs::path& directory) {
  const fs::path file = directory / "tokenizer_config.json";
  return fs::exists(file) ? read_json(file) : json::object();
}

/// A special token is a string, or an object with its content.
std::string token_text(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.is_object() ? value.value("content", "") : "";
}

json read_merges(const fs::path& file) {
  const std::string text = read_text_file(file, kMaxFileBytes);
  json merges = json::array();
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.pop_back();
    const bool version = begin == 0 && line.starts_with("#version");
    if (!line.empty() && !version) merges.push_back(std::move(line));
    begin = end + 1;
  }
  return merges;
}

json added_token(std::int64_t id, const std::string& content, bool special) {
  return {{"id", id}, {"content", content}, {"special", special}, {"normalized", false}};
}

json read_added(const fs::path& directory, const json& settings, const json& vocabulary) {
  json added = json::array();
  const json decoder = settings.value("added_tokens_decoder", json::object());
  for (const auto& [id, token] : decoder.items()) {
    json entry = token;
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
    if (error != std::errc() || end != id.data() + id.size()) {
      throw FormatError(fmt::format("{}: added_tokens_decoder has \"{:.40}\", which is no id",
                                    (directory / "tokenizer_config.json").string(), id));
    }
    entry["id"] = number;
    added.push_back(std::move(entry));
  }
  if (!added.empty()) return added;
  const fs::path more = directory / "added_tokens.json";
  if (fs::exists(more)) {
    const json tokens = read_json(more);
    for (const auto& [content, id] : tokens.items()) {
      added.push_back(added_token(id.get<std::int64_t>(), content, false));
    }
  }
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    const std::string content = token_text(settings.value(key, json()));
    if (vocabulary.contains(content)) {
      added.push_back(added_token(vocabulary.at(content).get<std::int64_t>(), content, true));
    }
  }
  return added;
}

/// The tokenizer.json that vocab.json and merges.txt of GPT-2, OPT or Qwen stand for.
json from_vocabulary_and_merges(const fs::path& directory, const json& settings) {
  json document;
  const json vocabulary = read_json(directory / "vocab.json");
  document["added_tokens"] = read_added(directory, settings, vocabulary);
  document["pre_tokenizer"] = {{"type", "ByteLevel"},
                               {"add_prefix_space", settings.value("add_prefix_space", false)},
                               {"use_regex", true}};
  document["decoder"] = {{"type", "ByteLevel"}};
  document["model"] = {
      {"type", "BPE"}, {"vocab", vocabulary}, {"merges", read_merges(directory / "merges.txt")}};
  const std::string begin = token_text(settings.value("bos_token", json()));
  if (settings.value("add_bos_token", false) && vocabulary.contains(begin)) {
    document["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", begin}}}}, {{"Sequence", {{"id", "A"}}}}}},
        {"special_tokens", {{begin, {{"ids", json::array({vocabulary.at(begin)})}}}}}};
  }
  return document;
}

}  // namespace

std::unique_ptr<Tokenizer> read_tokenizer(const fs::path& directory_or_file) {
  if (!fs::is_directory(directory_or_file)) {
    return parse_tokenizer(read_text_file(directory_or_file, kMaxFileBytes),
                           directory_or_file.string());
  }
  const fs::path& directory = directory_or_file;
  try {
    const json settings = read_settings(directory);
    const std::string end = token_text(settings.value("eos_token", json()));
    const fs::path file = directory / "tokenizer.json";
    if (fs::exists(file)) {
      return parse_tokenizer(read_text_file(file, kMaxFileBytes), file.string(), end);
    }
    if (fs::exists(directory / "vocab.json") && fs::exists(directory / "merges.txt")) {
      const json document = from_vocabulary_and_merges(directory, settings);
      return parse_tokenizer(document.dump(-1, ' ', false, json::error_handler_t::replace),
                             (directory / "vocab.json").string(), end);
    }
  } catch (const json::exception& error) {
    throw FormatError(
        fmt::format("{}: its tokenizer files do not fit: {}", directory.string(), error.what()));
  }
  if (fs::exists(directory / "tokenizer.model")) {
    throw UsageError(
        fmt::format("{0}: tokenizer.model of SentencePiece is not read here; make tokenizer.json "
                    "beside it with "
                    "transformers: AutoTokenizer.from_pretrained(\"{0}\").save_pretrained(\"{0}\")",
                    directory.string()));
  }
  throw UsageError(fmt::format(
      "{}: is not there, nor are vocab.json and merges.txt, and without them the model cannot read "
      "text; add the tokenizer that it was trained with",
      (directory / "tokenizer.json").string()));
}

}  // namespace strata
