#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_file.h"
#include "core/text/tokenizer.h"

namespace strata {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::int32_t kBytes = 256;
constexpr std::int32_t kEndOfDocument = kBytes;
constexpr const char* kEndOfDocumentText = "<|endoftext|>";
constexpr std::size_t kMaxFileBytes = 64 << 20;
constexpr int kMaxDepth = 32;

class ByteTokenizer final : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> ids;
    ids.reserve(text.size());
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    text.reserve(ids.size());
    for (const std::int32_t id : ids) {
      if (id < 0 || id > kEndOfDocument) {
        throw Error(fmt::format("token {} is not in the byte vocabulary of 257", id));
      }
      if (id != kEndOfDocument) text += static_cast<char>(id);
    }
    return text;
  }

  std::int64_t vocab_size() const noexcept override { return kBytes + 1; }
  std::int32_t end_of_document() const noexcept override { return kEndOfDocument; }
};

/// UTF-8 of the character that stands for `byte` in GPT-2's vocabulary: itself if it prints, else
/// the next free one from U+0100 on.
std::string character_of(int byte, int& next_free) {
  const bool prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
  const int code = prints ? byte : next_free++;
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
}

ordered_json vocabulary() {
  ordered_json vocabulary = ordered_json::object();
  int next_free = 0x100;
  for (int byte = 0; byte < kBytes; ++byte) vocabulary[character_of(byte, next_free)] = byte;
  return vocabulary;
}

ordered_json byte_level() {
  ordered_json part;
  part["type"] = "ByteLevel";
  part["add_prefix_space"] = false;
  part["trim_offsets"] = true;
  part["use_regex"] = false;
  return part;
}

ordered_json model() {
  ordered_json part;
  part["type"] = "BPE";
  for (const char* key :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    part[key] = nullptr;
  }
  for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) part[key] = false;
  part["vocab"] = vocabulary();
  part["merges"] = ordered_json::array();
  return part;
}

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw FormatError(fmt::format(
      "{}: {}; supported is the byte tokenizer that `strata init` writes (256 bytes and {})", path,
      what, kEndOfDocumentText));
}

/// `document` must have `value` at `pointer`, or nothing there if `value` is null.
void require(const json& document, const char* pointer, const json& value,
             const std::string& path) {
  const json::json_pointer place{pointer};
  const json found = document.contains(place) ? document.at(place) : json(nullptr);
  if (found == value) return;
  std::string shown = found.dump(-1, ' ', true, json::error_handler_t::replace);
  if (shown.size() > 80) shown = shown.substr(0, 80) + "...";
  refuse(path, fmt::format("{} is {}", std::string_view(pointer).substr(1), shown));
}

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

std::string byte_tokenizer_json() {
  ordered_json end;
  end["id"] = kEndOfDocument;
  end["content"] = kEndOfDocumentText;
  for (const char* key : {"single_word", "lstrip", "rstrip", "normalized"}) end[key] = false;
  end["special"] = true;
  ordered_json out;
  out["version"] = "1.0";
  out["truncation"] = nullptr;
  out["padding"] = nullptr;
  out["added_tokens"] = ordered_json::array({end});
  out["normalizer"] = nullptr;
  out["pre_tokenizer"] = byte_level();
  out["post_processor"] = nullptr;
  out["decoder"] = byte_level();
  out["model"] = model();
  return out.dump(2) + "\n";
}

std::unique_ptr<Tokenizer> parse_tokenizer(std::string_view text, const std::string& path) {
  const json document = parse_json_object(text, path, kMaxDepth);
  require(document, "/model/type", "BPE", path);
  require(document, "/model/merges", json::array(), path);
  require(document, "/model/vocab", json(vocabulary()), path);
  for (const char* absent :
       {"/truncation", "/padding", "/normalizer", "/post_processor", "/model/dropout",
        "/model/unk_token", "/model/continuing_subword_prefix", "/model/end_of_word_suffix"}) {
    require(document, absent, nullptr, path);
  }
  require(document, "/pre_tokenizer/type", "ByteLevel", path);
  require(document, "/pre_tokenizer/add_prefix_space", false, path);
  const json expected = json::parse(byte_tokenizer_json());
  require(document, "/added_tokens", expected["added_tokens"], path);
  return make_byte_tokenizer();
}

std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& file) {
  return parse_tokenizer(read_text_file(file, kMaxFileBytes), file.string());
}

}  // namespace strata
