#include "parallel/prefix_index.h"

#include <algorithm>

#include "core/hash.h"

namespace strata {

std::uint64_t page_hash(std::span<const std::int32_t> own, std::uint64_t before) {
  return hash_bytes(std::as_bytes(own), before);
}

void PrefixIndex::add(KvCache::Id id, std::span<const std::int32_t> tokens) {
  Sequence& sequence = sequences_[id];
  const std::size_t full = tokens.size() / kPageTokens;
  for (std::size_t page = sequence.hashes.size(); page < full; ++page) {
    const std::uint64_t before = page == 0 ? 0 : sequence.hashes.back();
    const auto own = page_tokens(tokens, page);
    sequence.hashes.push_back(page_hash(own, before));
    sequence.tokens.insert(sequence.tokens.end(), own.begin(), own.end());
    pages_.emplace(sequence.hashes.back(), id);
  }
}

void PrefixIndex::remove(KvCache::Id id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return;
  for (const std::uint64_t hash : found->second.hashes) {
    const auto [begin, end] = pages_.equal_range(hash);
    const auto own =
        std::find_if(begin, end, [id](const auto& entry) { return entry.second == id; });
    if (own != end) pages_.erase(own);
  }
  sequences_.erase(found);
}

std::span<const std::int32_t> PrefixIndex::tokens(KvCache::Id id) const {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return {};
  return found->second.tokens;
}

PrefixIndex::Match PrefixIndex::find(std::span<const std::int32_t> tokens, int most) const {
  Match match;
  std::uint64_t before = 0;
  for (int page = 0; page < most; ++page) {
    before = page_hash(page_tokens(tokens, static_cast<std::size_t>(page)), before);
    const auto found = pages_.find(before);
    if (found == pages_.end()) break;
    match = {found->second, page + 1};
  }
  if (match.pages == 0) return match;
  // Hashes may collide.
  const std::vector<std::int32_t>& there = sequences_.at(match.id).tokens;
  const std::size_t count = static_cast<std::size_t>(match.pages) * kPageTokens;
  return std::ranges::equal(tokens.first(count), std::span(there).first(count)) ? match : Match{};
}

}  // namespace strata
