#include "parallel/stored_prefixes.h"

#include <algorithm>

#include "parallel/prefix_index.h"

namespace strata {

/// The pages that are kept of the beginning of `tokens`.
std::vector<StoredPrefixes::Pages::iterator> StoredPrefixes::chain(
    std::span<const std::int32_t> tokens, std::size_t most) const {
  std::vector<Pages::iterator> found;
  std::uint64_t hash = 0;
  while (found.size() < most) {
    const std::span<const std::int32_t> own = page_tokens(tokens, found.size());
    hash = page_hash(own, hash);
    const auto next = by_hash_.find(hash);
    if (next == by_hash_.end()) break;
    const Page& page = *next->second;  // hashes may collide
    const std::int32_t before = found.empty() ? -1 : found.back()->slot;
    if (page.before != before || !std::ranges::equal(page.tokens, own)) break;
    found.push_back(next->second);
  }
  return found;
}

/// From the last to the first, so that none is dropped before those that follow it.
void StoredPrefixes::use(const std::vector<Pages::iterator>& chain) {
  for (std::size_t i = chain.size(); i-- > 0;) pages_.splice(pages_.begin(), pages_, chain[i]);
}

void StoredPrefixes::store(std::span<const std::int32_t> tokens,
                           std::span<const std::int32_t> pages) {
  std::vector<Pages::iterator> kept = chain(tokens, pages.size());
  use(kept);
  const std::size_t missing = pages.size() - kept.size();
  const std::size_t droppable = pages_.size() - kept.size();
  const std::size_t more = std::min(missing, swap_.free_slots() + droppable);
  make_room(more);
  const std::vector<std::int32_t> slots = swap_.store(pages.subspan(kept.size(), more));
  for (const std::int32_t slot : slots) {
    const std::span<const std::int32_t> own = page_tokens(tokens, kept.size());
    const std::uint64_t hash = page_hash(own, kept.empty() ? 0 : kept.back()->hash);
    pages_.push_front({.hash = hash,
                       .tokens = {own.begin(), own.end()},
                       .slot = slot,
                       .before = kept.empty() ? -1 : kept.back()->slot});
    if (!by_hash_.emplace(hash, pages_.begin()).second) {  // another page's: this one is not found
      swap_.drop(std::span(slots).subspan(static_cast<std::size_t>(&slot - slots.data())));
      pages_.pop_front();
      break;
    }
    kept.push_back(pages_.begin());
  }
  use(kept);
}

std::vector<std::int32_t> StoredPrefixes::find(std::span<const std::int32_t> tokens,
                                               std::size_t most) {
  const std::vector<Pages::iterator> found = chain(tokens, most);
  use(found);
  std::vector<std::int32_t> slots;
  for (const Pages::iterator& page : found) slots.push_back(page->slot);
  return slots;
}

bool StoredPrefixes::make_room(std::size_t slots) {
  while (swap_.free_slots() < slots && !pages_.empty()) {
    const Page& page = pages_.back();
    swap_.drop({&page.slot, 1});
    by_hash_.erase(page.hash);
    pages_.pop_back();
  }
  return swap_.free_slots() >= slots;
}

}  // namespace strata
