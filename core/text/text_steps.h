#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/text/regex.h"
#include "core/text/tokenizer.h"

namespace strata {

// Internal to core/text: the components of a tokenizer.json that change or cut text. Not installed.

/// Changes a piece of text before it is cut into words.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string apply(std::string text, TextStart start) const = 0;
};

/// @param part the "normalizer" of a tokenizer.json. @param path of the file, for messages
/// @return null where the file has none. @throws FormatError for a kind that is not supported
std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& part, const std::string& path);

/// Words on their way through pre-tokenizers: views of the text that was given, or of text that a
/// step made.
struct Words {
  std::vector<std::string_view> words;
  std::deque<std::string> made;
  TextStart start = TextStart::kBeginning;  ///< of the first word
};

/// Cuts words into smaller ones that merges do not cross.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Words& words) const = 0;
};

struct PreTokenizers {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  bool byte_level = false;  ///< words are then spelled in bytes, not in characters
};

/// @param part the "pre_tokenizer" of a tokenizer.json, may be null
PreTokenizers make_pre_tokenizers(const nlohmann::json& part, const std::string& path);

/// Turns the texts of tokens back into the text they came from.
class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  /// `tokens` in order, changed in place; a decoder may join them.
  virtual void apply(std::vector<std::string>& tokens) const = 0;
};

/// @param part the "decoder" of a tokenizer.json, may be null. ByteLevel is not one of these:
/// tokens of byte-level vocabularies are kept as bytes.
std::vector<std::unique_ptr<TokenDecoder>> make_decoders(const nlohmann::json& part,
                                                         const std::string& path);

/// The byte that a token "<0xXX>" stands for, or -1.
int byte_of_fallback_token(std::string_view token);

/// {"Regex": ...} or {"String": ...}.
Regex make_pattern(const nlohmann::json& part, const std::string& path);

/// @throws FormatError "PATH: the KIND "TYPE" is not supported; supported are ..."
[[noreturn]] void refuse_component(const nlohmann::json& part, const char* kind,
                                   const char* supported, const std::string& path);

}  // namespace strata
