#pragma once

// Internal to text generation. Not installed.

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "swap/kv_cache.h"

namespace strata {

/// The tokens of page `page` of a text. @pre it is full
inline std::span<const std::int32_t> page_tokens(std::span<const std::int32_t> tokens,
                                                 std::size_t page) {
  return tokens.subspan(page * kPageTokens, kPageTokens);
}
/// Of all tokens of a text up to the end of a page: of the page's own, and the hash of all
/// `before`.
std::uint64_t page_hash(std::span<const std::int32_t> own, std::uint64_t before);

/// Which sequence of a cache has the keys and values of which beginning: full pages, found by their
/// tokens and all before them.
class PrefixIndex {
 public:
  /// The sequence has computed `tokens` so far, from its first on; pages that fill are added.
  void add(KvCache::Id id, std::span<const std::int32_t> tokens);
  void remove(KvCache::Id id);
  /// Of the sequence's full pages; none if it was not added. Until it changes.
  std::span<const std::int32_t> tokens(KvCache::Id id) const;

  struct Match {
    KvCache::Id id = -1;  ///< -1: none
    int pages = 0;
  };
  /// The longest beginning of `tokens` that a sequence has, at most `most` pages of it.
  Match find(std::span<const std::int32_t> tokens, int most) const;

 private:
  struct Sequence {
    std::vector<std::int32_t> tokens;   // of full pages
    std::vector<std::uint64_t> hashes;  // by page: of all tokens up to its end
  };
  std::unordered_map<KvCache::Id, Sequence> sequences_;
  std::unordered_multimap<std::uint64_t, KvCache::Id> pages_;  // by hash
};

}  // namespace strata
