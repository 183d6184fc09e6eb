#pragma once

#include <optional>
#include <span>
#include <vector>

#include "core/memory_pool.h"
#include "core/stream.h"

namespace strata {

/// A piece of a SlotArena. Its memory may be used once all of `free` happened.
struct Slot {
  std::size_t offset = 0;
  std::span<std::byte> memory;
  std::vector<Event> free;
};

/// Hands out memory whose last users may still be at work: an answer never waits, and depends only
/// on the order of the calls, so every rank gets the same. Not thread-safe. Owns no memory.
class SlotArena {
 public:
  explicit SlotArena(std::span<std::byte> memory);

  /// Empty when what was not released leaves no gap of that size.
  std::optional<Slot> allocate(std::size_t bytes);
  /// Others may have the slot after all of `last_uses`.
  void release(const Slot& slot, std::vector<Event> last_uses);

 private:
  struct Retired {
    std::size_t begin;
    std::size_t end;
    std::vector<Event> last_uses;
  };

  std::span<std::byte> memory_;
  RangeAllocator ranges_;
  std::vector<Retired> retired_;
};

}  // namespace strata
