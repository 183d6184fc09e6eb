#include "parallel/slot_arena.h"

#include <algorithm>

namespace strata {

SlotArena::SlotArena(std::span<std::byte> memory)
    : memory_(memory), ranges_(memory.size(), MemoryPool::kAlignment) {}

std::optional<Slot> SlotArena::allocate(std::size_t bytes) {
  const std::optional<std::size_t> offset = ranges_.allocate(bytes);
  if (!offset) return std::nullopt;
  Slot slot{.offset = *offset, .memory = memory_.subspan(*offset, bytes), .free = {}};
  for (const Retired& retired : retired_) {
    if (retired.begin >= *offset + bytes || retired.end <= *offset) continue;
    slot.free.insert(slot.free.end(), retired.last_uses.begin(), retired.last_uses.end());
  }
  return slot;
}

void SlotArena::release(const Slot& slot, std::vector<Event> last_uses) {
  ranges_.release(slot.offset);
  std::erase_if(retired_, [](const Retired& retired) {
    return std::ranges::all_of(retired.last_uses, &Event::ready);
  });
  retired_.push_back({slot.offset, slot.offset + slot.memory.size(), std::move(last_uses)});
}

}  // namespace strata
