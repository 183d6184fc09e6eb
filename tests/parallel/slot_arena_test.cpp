#include "parallel/slot_arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "core/device.h"

namespace strata {
namespace {

constexpr std::size_t kPage = MemoryPool::kAlignment;

class SlotArenaTest : public testing::Test {
 protected:
  Buffer memory_ = allocate_host(8 * kPage);
  SlotArena arena_{{memory_.data(), memory_.bytes()}};
};

/// Whether `slot` waits for `event`.
bool waits_for(const Slot& slot, const HostEvent& event) {
  return std::ranges::any_of(
      slot.free, [&](const Event& free) { return free.state() == event.event().state(); });
}

TEST_F(SlotArenaTest, FreshMemoryMayBeUsedAtOnce) {
  const std::optional<Slot> slot = arena_.allocate(3 * kPage);
  ASSERT_TRUE(slot);
  EXPECT_EQ(slot->memory.data(), memory_.data());
  EXPECT_EQ(slot->memory.size(), 3 * kPage);
  EXPECT_TRUE(slot->free.empty());
}

TEST_F(SlotArenaTest, AnswersAtOnceAndNamesEveryUserOfTheMemoryBefore) {
  const HostEvent first_use;
  const HostEvent second_use;
  const HostEvent elsewhere;
  const Slot first = arena_.allocate(2 * kPage).value();
  const Slot second = arena_.allocate(2 * kPage).value();
  const Slot third = arena_.allocate(2 * kPage).value();
  arena_.release(first, {first_use.event()});
  arena_.release(second, {second_use.event()});
  arena_.release(third, {elsewhere.event()});
  const Slot over_both = arena_.allocate(3 * kPage).value();
  EXPECT_EQ(over_both.offset, 0u);
  EXPECT_TRUE(waits_for(over_both, first_use));
  EXPECT_TRUE(waits_for(over_both, second_use));
  EXPECT_FALSE(waits_for(over_both, elsewhere)) << "it lies behind the slot";
}

TEST_F(SlotArenaTest, RemembersUsersThroughASlotThatWasNeverUsed) {
  const HostEvent use;
  const Slot first = arena_.allocate(4 * kPage).value();
  arena_.release(first, {use.event()});
  const Slot given_back = arena_.allocate(4 * kPage).value();
  arena_.release(given_back, {});
  EXPECT_TRUE(waits_for(arena_.allocate(kPage).value(), use));
}

TEST_F(SlotArenaTest, ForgetsUsersThatAreDone) {
  const HostEvent use;
  const Slot first = arena_.allocate(kPage).value();
  arena_.release(first, {use.event()});
  use.complete();
  arena_.release(arena_.allocate(kPage).value(), {});
  EXPECT_TRUE(arena_.allocate(kPage)->free.empty());
}

TEST_F(SlotArenaTest, IsEmptyHandedWhenNoGapIsWideEnough) {
  const Slot first = arena_.allocate(3 * kPage).value();
  const Slot second = arena_.allocate(3 * kPage).value();
  EXPECT_FALSE(arena_.allocate(3 * kPage));
  arena_.release(first, {});
  EXPECT_FALSE(arena_.allocate(4 * kPage)) << "the gaps of 3 and 2 are not one";
  EXPECT_EQ(arena_.allocate(3 * kPage)->offset, 0u);
  arena_.release(second, {});
}

TEST_F(SlotArenaTest, OffsetsDependOnTheCallsAndNotOnWhoIsDone) {
  const auto offsets = [this](bool done) {
    SlotArena arena({memory_.data(), memory_.bytes()});
    std::vector<std::size_t> result;
    std::vector<Slot> held;
    for (std::size_t i = 0; i < 40; ++i) {
      std::optional<Slot> slot = arena.allocate((1 + i * 7 % 3) * kPage);
      result.push_back(slot ? slot->offset : memory_.bytes());
      if (slot) held.push_back(std::move(*slot));
      if (!slot || i % 3 == 2) {
        const HostEvent use;
        if (done) use.complete();
        arena.release(held.front(), {use.event()});
        held.erase(held.begin());
      }
    }
    return result;
  };
  EXPECT_EQ(offsets(true), offsets(false));
}

}  // namespace
}  // namespace strata
