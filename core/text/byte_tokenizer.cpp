#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/text/bpe_model.h"
#include "core/text/tokenizer.h"

namespace strata {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kBytes = 256;
constexpr std::int32_t kEndOfDocument = 256;
constexpr const char* kEndOfDocumentText = "<|endoftext|>";

class ByteTokenizer final : public Tokenizer {
 public:
  void encode(std::string_view text, const EncodeOptions& options,
              std::vector<std::int32_t>& ids) const override {
    const std::string_view end = kEndOfDocumentText;
    ids.reserve(ids.size() + text.size());
    while (!text.empty()) {
      if (options.parse_special && text.starts_with(end)) {
        ids.push_back(kEndOfDocument);
        text.remove_prefix(end.size());
      } else {
        ids.push_back(static_cast<unsigned char>(text.front()));
        text.remove_prefix(1);
      }
    }
  }

  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const override {
    std::string text;
    text.reserve(ids.size());
    for (const std::int32_t id : ids) {
      if (id < 0 || id > kEndOfDocument) {
        throw Error(fmt::format("token {} is not in the byte vocabulary of 257", id));
      }
      if (id != kEndOfDocument) {
        text += static_cast<char>(id);
      } else if (!skip_special) {
        text += kEndOfDocumentText;
      }
    }
    return text;
  }

  const Frame& frame() const noexcept override { return frame_; }
  std::int64_t vocab_size() const noexcept override { return kBytes + 1; }
  std::int32_t end_of_document() const noexcept override { return kEndOfDocument; }
  std::optional<std::int32_t> find(std::string_view token) const override {
    if (token == kEndOfDocumentText) return kEndOfDocument;
    const auto& characters = byte_characters();
    const auto found = std::ranges::find(characters, token);
    if (found == characters.end()) return std::nullopt;
    return static_cast<std::int32_t>(found - characters.begin());
  }
  std::uint64_t fingerprint() const noexcept override { return 0; }
  std::string describe() const override { return "bytes, 257 tokens"; }

 private:
  Frame frame_;  // empty
};

ordered_json vocabulary() {
  ordered_json vocabulary = ordered_json::object();
  for (std::size_t byte = 0; byte < kBytes; ++byte) vocabulary[byte_characters()[byte]] = byte;
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

}  // namespace strata
