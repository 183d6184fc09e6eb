#pragma once

// Internal to text generation. Not installed.

#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "swap/kv_swap.h"

namespace strata {

/// Beginnings of texts whose keys and values wait on drives: full pages, each found by its tokens
/// and all before them, and kept once however many texts begin with it. They take what is free
/// there; of those that were not used for longest, the last page goes first.
class StoredPrefixes {
 public:
  /// @param swap borrowed, outlives the object
  explicit StoredPrefixes(KvSwap& swap) : swap_(swap) {}
  ~StoredPrefixes() { make_room(pages_.size() + swap_.free_slots()); }
  StoredPrefixes(const StoredPrefixes&) = delete;
  StoredPrefixes& operator=(const StoredPrefixes&) = delete;

  /// Keeps what `pages` hold, the full pages of `tokens` from the first on, as far as there is room
  /// without dropping any of them. @throws IoError
  void store(std::span<const std::int32_t> tokens, std::span<const std::int32_t> pages);
  /// Slots of the longest beginning of `tokens` that is kept, at most `most` pages of it, to be
  /// loaded before anything is dropped; they count as used.
  std::vector<std::int32_t> find(std::span<const std::int32_t> tokens, std::size_t most);
  /// Drops pages until so many slots are free. @return whether they are
  bool make_room(std::size_t slots);

 private:
  struct Page {
    std::uint64_t hash = 0;  // of all tokens up to its end
    std::vector<std::int32_t> tokens;
    std::int32_t slot = 0;
    std::int32_t before = -1;  // the slot of the page before it; -1: there is none
  };
  using Pages = std::list<Page>;  // the last used first, a page before those that follow it

  std::vector<Pages::iterator> chain(std::span<const std::int32_t> tokens, std::size_t most) const;
  void use(const std::vector<Pages::iterator>& chain);

  KvSwap& swap_;
  Pages pages_;
  std::unordered_map<std::uint64_t, Pages::iterator> by_hash_;
};

}  // namespace strata
