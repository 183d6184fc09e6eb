#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/paged_kv.h"

namespace strata {

/// Pages that so many tokens take up.
constexpr std::int64_t pages_for(std::int64_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}

/// What a token's keys and values are, in all layers.
struct KvShape {
  int layers = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_size = 0;
  Dtype dtype = Dtype::kBf16;

  /// Of one page of kPageTokens tokens, in all layers.
  std::size_t page_bytes() const;
};

/// Keys and values of the sequences in flight, in pages that all of them draw from one fixed piece
/// of memory. A page is a number that is the same in every layer. Pages may belong to several
/// sequences that begin alike; nothing is written to those.
///
/// One thread at a time; whoever reads or writes pages on a stream does it between the calls.
class KvCache {
 public:
  /// A sequence in the cache. Numbers of sequences that were removed are given again.
  using Id = int;

  /// @param memory for memory.size() / shape.page_bytes() pages; aligned to 64 bytes, borrowed
  KvCache(const KvShape& shape, std::span<std::byte> memory);

  int page_count() const noexcept { return static_cast<int>(users_.size()); }
  int free_pages() const noexcept { return static_cast<int>(free_.size()); }
  /// Where layer `index` lies.
  PagedKv layer(int index) const;

  Id add();
  /// A sequence that begins with the first `pages` pages of `other`, which have to be full.
  Id add_sharing(Id other, int pages);
  /// Makes room for the sequence's first `tokens` tokens.
  /// @return false, with nothing changed, if there are not enough free pages
  bool grow(Id id, std::int64_t tokens);
  /// Gives back the pages all of whose tokens come before `token`: a sliding window has passed
  /// them.
  void pass(Id id, std::int64_t token);
  void remove(Id id);
  /// For SequenceRows; until the sequence grows or is removed. -1 where a page was given back.
  std::span<const std::int32_t> pages(Id id) const;

 private:
  void give_back(std::int32_t& page);
  std::vector<std::int32_t>& sequence(Id id) { return sequences_.at(static_cast<std::size_t>(id)); }

  KvShape shape_;
  std::byte* memory_;
  std::vector<int> users_;                            // by page: sequences that have it
  std::vector<std::int32_t> free_;                    // pages without
  std::vector<std::vector<std::int32_t>> sequences_;  // by id: their pages
  std::vector<Id> free_ids_;
};

}  // namespace strata
