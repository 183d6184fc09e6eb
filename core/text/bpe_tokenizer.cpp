#include <fmt/format.h>

#include <mutex>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/hash.h"
#include "core/json_file.h"
#include "core/text/added_tokens.h"
#include "core/text/bpe_model.h"
#include "core/text/text_steps.h"
#include "core/text/tokenizer.h"
#include "core/text/utf8.h"

namespace strata {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

constexpr int kMaxDepth = 32;
constexpr std::int64_t kMostTokens = 1 << 22;

/// Adds what a post-processor puts around the ids of a text.
void add_frame(const json& part, const std::string& path, Tokenizer::Frame& frame) {
  if (part.is_null()) return;
  const std::string type = part.value("type", "");
  if (type == "Sequence") {
    for (const json& step : part.at("processors")) add_frame(step, path, frame);
  } else if (type == "TemplateProcessing") {
    bool seen = false;
    for (const json& piece : part.at("single")) {
      if (piece.contains("Sequence")) {
        seen = true;
        continue;
      }
      const auto name = piece.at("SpecialToken").at("id").get<std::string>();
      const Ids ids = part.at("special_tokens").at(name).at("ids").get<Ids>();
      Ids& side = seen ? frame.behind : frame.before;
      side.insert(side.end(), ids.begin(), ids.end());
    }
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    frame.before.push_back(part.at("cls").at(1).get<std::int32_t>());
    frame.behind.push_back(part.at("sep").at(1).get<std::int32_t>());
  } else if (type != "ByteLevel") {
    refuse_component(part, "post_processor",
                     "Sequence, TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel",
                     path);
  }
}

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(const json& document, const std::string& path, std::string_view end,
               std::uint64_t fingerprint)
      : fingerprint_(fingerprint),
        normalizer_(make_normalizer(document.value("normalizer", json()), path)),
        pre_tokenizers_(make_pre_tokenizers(document.value("pre_tokenizer", json()), path)),
        decoders_(make_decoders(document.value("decoder", json()), path)),
        model_(document.at("model"), pre_tokenizers_.byte_level, path) {
    add_frame(document.value("post_processor", json()), path, frame_);
    for (const json& token : document.value("added_tokens", json::array())) {
      add_token(token, path);
    }
    for (const Ids* side : {&frame_.before, &frame_.behind}) {
      for (const std::int32_t id : *side) {
        if (text_of(id) == nullptr) {
          throw FormatError(
              fmt::format("{}: post_processor adds the id {}, which is no token", path, id));
        }
      }
    }
    end_ = end_token(end, path);
  }

  using Tokenizer::encode;
  void encode(std::string_view text, const EncodeOptions& options, Ids& ids) const override {
    const std::string valid = valid_utf8(text);
    std::unique_ptr<BpeModel::Scratch> scratch = borrow();
    if (options.add_special) ids.insert(ids.end(), frame_.before.begin(), frame_.before.end());
    const auto token = [&ids](const AddedToken& found) { ids.push_back(found.id); };
    raw_.split(
        valid, options.parse_special,
        [&](TextSpan span) {
          const std::string_view piece =
              std::string_view(valid).substr(span.begin, span.end - span.begin);
          encode_piece(piece, span.begin == 0 ? options.start : TextStart::kAfterToken,
                       options.parse_special, *scratch, ids);
        },
        token);
    if (options.add_special) ids.insert(ids.end(), frame_.behind.begin(), frame_.behind.end());
    give_back(std::move(scratch));
  }

  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const override {
    std::vector<std::string> tokens;
    tokens.reserve(ids.size());
    for (const std::int32_t id : ids) {
      const auto added = added_.find(id);
      if (added != added_.end() && added->second.special && skip_special) continue;
      const std::string* text = text_of(id);
      if (text == nullptr) {
        throw Error(fmt::format("token {} is not in the vocabulary of {}", id, vocab_size()));
      }
      tokens.push_back(*text);
    }
    for (const auto& decoder : decoders_) decoder->apply(tokens);
    std::string result;
    for (const std::string& token : tokens) result += token;
    return result;
  }

  const Frame& frame() const noexcept override { return frame_; }
  std::int64_t vocab_size() const noexcept override { return size_; }
  std::int32_t end_of_document() const noexcept override { return end_; }
  std::optional<std::int32_t> find(std::string_view token) const override {
    for (const auto& [id, added] : added_) {
      if (added.content == token) return id;
    }
    return model_.find_spelled(std::string(token));
  }
  std::uint64_t fingerprint() const noexcept override { return fingerprint_; }
  std::string describe() const override {
    return fmt::format("BPE, {} tokens, {}, {} of them added", vocab_size(),
                       pre_tokenizers_.byte_level ? "byte-level" : "characters", added_.size());
  }

 private:
  void add_token(const json& part, const std::string& path) {
    AddedToken token{.id = 0,
                     .content = part.at("content").get<std::string>(),
                     .single_word = part.value("single_word", false),
                     .lstrip = part.value("lstrip", false),
                     .rstrip = part.value("rstrip", false),
                     .normalized = part.value("normalized", true),
                     .special = part.value("special", false)};
    const json id = part.at("id");
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= kMostTokens) {
      throw FormatError(fmt::format("{}: the id of an added token is not one from 0 to {}", path,
                                    kMostTokens - 1));
    }
    token.id = model_.find_spelled(token.content).value_or(id.get<std::int32_t>());
    added_.insert_or_assign(token.id, token);
    size_ = std::max<std::int64_t>({size_, model_.size(), token.id + 1});
    if (!token.normalized) {
      raw_.add(token.content, token);
    } else {
      normalized_.add(
          normalizer_ ? normalizer_->apply(token.content, TextStart::kBeginning) : token.content,
          token);
    }
  }

  std::int32_t end_token(std::string_view wanted, const std::string& path) {
    size_ = std::max(size_, model_.size());
    if (!wanted.empty()) {
      if (const auto id = find(wanted)) return *id;
      throw FormatError(
          fmt::format("{}: the token {:.80} that ends a text is not in it", path, wanted));
    }
    for (const char* usual : {"<|endoftext|>", "<|end_of_text|>", "</s>"}) {
      if (const auto id = find(usual)) return *id;
    }
    throw FormatError(fmt::format(
        "{}: no token ends a text; name it as eos_token in tokenizer_config.json", path));
  }

  void encode_piece(std::string_view piece, TextStart start, bool parse_special,
                    BpeModel::Scratch& scratch, Ids& ids) const {
    std::string changed;
    if (normalizer_) {
      changed = normalizer_->apply(std::string(piece), start);
      piece = changed;
    }
    if (normalized_.empty()) {
      encode_words(piece, start, scratch, ids);
      return;
    }
    normalized_.split(
        piece, parse_special,
        [&](TextSpan span) {
          encode_words(piece.substr(span.begin, span.end - span.begin),
                       span.begin == 0 ? start : TextStart::kAfterToken, scratch, ids);
        },
        [&ids](const AddedToken& found) { ids.push_back(found.id); });
  }

  void encode_words(std::string_view text, TextStart start, BpeModel::Scratch& scratch,
                    Ids& ids) const {
    Words words{.words = {text}, .made = {}, .start = start};
    for (const auto& step : pre_tokenizers_.steps) step->apply(words);
    for (const std::string_view word : words.words) model_.encode(word, scratch, ids);
  }

  const std::string* text_of(std::int32_t id) const {
    const auto added = added_.find(id);
    return added != added_.end() ? &added->second.content : model_.text(id);
  }

  std::unique_ptr<BpeModel::Scratch> borrow() const {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<BpeModel::Scratch>();
    auto scratch = std::move(idle_.back());
    idle_.pop_back();
    return scratch;
  }
  void give_back(std::unique_ptr<BpeModel::Scratch> scratch) const {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(scratch));
  }

  std::uint64_t fingerprint_;
  std::unique_ptr<Normalizer> normalizer_;
  PreTokenizers pre_tokenizers_;
  std::vector<std::unique_ptr<TokenDecoder>> decoders_;
  BpeModel model_;
  Frame frame_;
  std::unordered_map<std::int32_t, AddedToken> added_;
  AddedTokens raw_, normalized_;
  std::int64_t size_ = 0;
  std::int32_t end_ = 0;
  mutable std::mutex mutex_;  // of idle_
  mutable std::vector<std::unique_ptr<BpeModel::Scratch>> idle_;
};

}  // namespace

std::unique_ptr<Tokenizer> parse_tokenizer(std::string_view text, const std::string& path,
                                           std::string_view end) {
  const json document = parse_json_object(text, path, kMaxDepth);
  if (document == json::parse(byte_tokenizer_json())) return make_byte_tokenizer();
  try {
    return std::make_unique<BpeTokenizer>(document, path, end, hash_text(text, hash_text(end)));
  } catch (const json::exception& error) {
    throw FormatError(fmt::format("{}: is not a tokenizer: {}", path, error.what()));
  }
}

std::string StreamingDecoder::add(std::int32_t id) {
  ids_.push_back(id);
  const std::string text = tokenizer_.decode(ids_);
  // Decoders of byte tokens show a character that is not complete as U+FFFD.
  const std::string_view unknown = "\xef\xbf\xbd";
  std::string_view shown(text.data(), complete_utf8(text));
  while (shown.ends_with(unknown)) shown.remove_suffix(unknown.size());
  const std::size_t complete = shown.size();
  std::string fresh = complete > shown_ ? text.substr(shown_, complete - shown_) : std::string();
  shown_ = std::max(shown_, complete);
  if (shown_ == text.size()) {
    // Only a token that stands for its own text is enough to go on from: a byte is not.
    const std::string last = tokenizer_.decode(std::span(&id, 1));
    if (!last.empty() && text.ends_with(last)) {
      ids_ = {id};
      shown_ = last.size();
    }
  }
  return fresh;
}

std::string StreamingDecoder::finish() {
  const std::string text = tokenizer_.decode(ids_);
  std::string rest = text.size() > shown_ ? text.substr(shown_) : std::string();
  ids_.clear();
  shown_ = 0;
  return rest;
}

}  // namespace strata
