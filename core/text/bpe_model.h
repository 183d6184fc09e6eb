#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/text/bpe_tables.h"

namespace strata {

/// Byte-pair encoding: a word becomes symbols, and pairs of neighbours are merged, the one of the
/// lowest rank first. Immutable.
class BpeModel {
 public:
  /// What one thread keeps between words.
  struct Scratch {
    struct Symbol {
      std::int32_t before, after;  // neighbours, -1: none
    };
    struct Candidate {
      std::uint32_t rank;
      std::int32_t left;
      std::int32_t merged;  // the token it makes
    };
    std::vector<std::int32_t> ids;     // of the word's symbols; -1: merged into the one before
    std::vector<std::uint32_t> ranks;  // of the pairs that begin at each symbol
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
    WordCache words;
  };

  /// @param model the "model" of a tokenizer.json
  /// @param byte_level words are given in bytes, and the file spells bytes as GPT-2 does
  /// @throws FormatError naming the token or merge that does not fit
  BpeModel(const nlohmann::json& model, bool byte_level, const std::string& path);

  /// Adds the ids of a word.
  void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;

  /// The bytes of a token, spelled as the decoders expect them. @return null outside the vocabulary
  const std::string* text(std::int32_t id) const;
  std::optional<std::int32_t> find(std::string_view token) const;
  std::int64_t size() const noexcept { return static_cast<std::int64_t>(texts_.size()); }
  /// As the file spells it: for tokens that are named, not found in texts.
  std::optional<std::int32_t> find_spelled(const std::string& token) const;

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept {
      return std::hash<std::string_view>()(text);
    }
  };

  void read_vocabulary(const nlohmann::json& vocabulary, const std::string& path);
  void read_merges(const nlohmann::json& merges, const std::string& path);
  void split(std::string_view word, Scratch& scratch) const;
  void add_unknown(std::string_view character, Scratch& scratch) const;
  void push(std::int32_t left, Scratch& scratch) const;
  void merge_few(Scratch& scratch) const;
  void merge_many(Scratch& scratch) const;

  bool byte_level_;
  bool ignore_merges_ = false;
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  std::int32_t unknown_ = -1;
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> ids_;
  std::vector<std::string> texts_;
  std::vector<bool> taken_;
  MergeTable merges_;
  std::array<std::int32_t, 256> byte_ids_{};
};

/// The UTF-8 character that GPT-2's vocabulary spells each byte with.
const std::array<std::string, 256>& byte_characters();

}  // namespace strata
