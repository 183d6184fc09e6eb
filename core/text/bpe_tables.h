#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace strata {

// Internal to core/text: tables that tokenizing looks things up in, a million times a second. Not
// installed.

/// Spreads the bits of a key over a table's places.
inline std::uint64_t spread(std::uint64_t a, std::uint64_t b) noexcept {
  const std::uint64_t mixed = (a ^ (b << 29 | b >> 35)) * 0x9e3779b97f4a7c15u;
  return mixed ^ mixed >> 32;
}

/// The ids of words seen before. Short words with few ids, which most are, lie in a table where a
/// newer word takes the place of an older one; others in a map that is emptied when it is full.
class WordCache {
 public:
  /// Adds the ids of a word to `ids`. @return false when it is not known
  bool find(std::string_view word, std::vector<std::int32_t>& ids) const {
    if (word.size() <= kShort && !places_.empty()) {
      const Key key = key_of(word);
      const Place& place = places_[index_of(key)];
      if (place.key == key) {
        ids.insert(ids.end(), place.ids.data(), place.ids.data() + place.count);
        return true;
      }
    }
    const auto known = others_.find(word);
    if (known == others_.end()) return false;
    ids.insert(ids.end(), known->second.begin(), known->second.end());
    return true;
  }

  void add(std::string_view word, std::span<const std::int32_t> ids) {
    if (word.size() > kLongest) return;
    if (word.size() > kShort || ids.size() > kFewIds) {
      if (others_.size() >= kMostOthers) others_.clear();
      others_.emplace(word, std::vector(ids.begin(), ids.end()));
      return;
    }
    if (places_.empty()) places_.resize(kPlaces);
    const Key key = key_of(word);
    Place& place = places_[index_of(key)];
    place.key = key;
    place.count = static_cast<std::int32_t>(ids.size());
    std::ranges::copy(ids, place.ids.begin());
  }

 private:
  static constexpr std::size_t kShort = 15;
  static constexpr std::size_t kFewIds = 3;
  static constexpr std::size_t kPlaces = 1 << 16;
  static constexpr std::size_t kLongest = 64;  // bytes of a word that is kept
  static constexpr std::size_t kMostOthers = 1 << 17;

  /// A word's bytes and their number; all zero for no word.
  struct Key {
    std::uint64_t low = 0, high = 0;
    bool operator==(const Key&) const = default;
  };
  struct Place {
    Key key;
    std::array<std::int32_t, kFewIds> ids{};
    std::int32_t count = 0;
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept {
      return std::hash<std::string_view>()(text);
    }
  };

  static Key key_of(std::string_view word) noexcept {
    std::array<char, 16> bytes{};
    std::memcpy(bytes.data(), word.data(), word.size());
    bytes.back() = static_cast<char>(word.size());
    Key key;
    std::memcpy(&key.low, bytes.data(), 8);
    std::memcpy(&key.high, bytes.data() + 8, 8);
    return key;
  }
  static std::size_t index_of(const Key& key) noexcept {
    return spread(key.low, key.high) % kPlaces;
  }

  std::vector<Place> places_;
  std::unordered_map<std::string, std::vector<std::int32_t>, Hash, std::equal_to<>> others_;
};

/// What pairs of tokens merge into. Open addressing, at most half full.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank = 0;
    std::int32_t merged = 0;
  };

  /// Makes room for `count` pairs in an empty table.
  void reserve(std::size_t count) { places_.resize(std::bit_ceil(2 * count + 1)); }
  /// The last merge of a pair counts. @pre there is room
  void put(std::int32_t left, std::int32_t right, Merge merge) {
    const std::uint64_t both = pair(left, right);
    places_[index_of(both)] = {both, merge};
  }
  /// @return null: they do not merge
  const Merge* find(std::int32_t left, std::int32_t right) const noexcept {
    if (places_.empty()) return nullptr;
    const Place& place = places_[index_of(pair(left, right))];
    return place.pair == kNone ? nullptr : &place.merge;
  }

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};  // ids are not negative
  struct Place {
    std::uint64_t pair = kNone;
    Merge merge;
  };
  static std::uint64_t pair(std::int32_t left, std::int32_t right) noexcept {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }
  /// The place of a pair, or the free one where it belongs.
  std::size_t index_of(std::uint64_t pair) const noexcept {
    std::size_t index = spread(pair, 0) & (places_.size() - 1);
    while (places_[index].pair != pair && places_[index].pair != kNone) {
      index = (index + 1) & (places_.size() - 1);
    }
    return index;
  }

  std::vector<Place> places_;
};

}  // namespace strata
