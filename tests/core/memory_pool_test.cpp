#include "core/memory_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "core/device.h"
#include "core/error.h"
#include "core/stream.h"
#include "tests/support/messages.h"

namespace strata {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kPage = MemoryPool::kAlignment;

std::span<std::byte> span_of(const Buffer& buffer) { return {buffer.data(), buffer.bytes()}; }

TEST(RangeAllocator, TakesTheFirstGapThatIsWideEnough) {
  RangeAllocator ranges(100, 10);
  EXPECT_EQ(ranges.allocate(20), 0u);
  EXPECT_EQ(ranges.allocate(10), 20u);
  EXPECT_EQ(ranges.allocate(30), 30u);
  EXPECT_EQ(ranges.allocate(10), 60u);
  ranges.release(20);
  ranges.release(0);
  EXPECT_EQ(ranges.allocate(31), std::nullopt) << "it would be 40 wide";
  EXPECT_EQ(ranges.allocate(30), 0u) << "two gaps side by side are one";
  EXPECT_EQ(ranges.allocate(30), 70u);
  EXPECT_EQ(ranges.allocate(1), std::nullopt);
  EXPECT_EQ(ranges.taken(), 100u);
}

TEST(RangeAllocator, RoundsEverythingUpAndNothingToOneUnit) {
  RangeAllocator ranges(64, 16);
  EXPECT_EQ(ranges.allocate(0), 0u);
  EXPECT_EQ(ranges.allocate(17), 16u);
  EXPECT_EQ(ranges.allocate(1), 48u);
  EXPECT_EQ(ranges.allocate(0), std::nullopt);
}

TEST(RangeAllocator, RemembersTheHighestEndAndNotTheSum) {
  RangeAllocator ranges(1 << 20, 1);
  const std::size_t first = ranges.allocate(1000).value();
  ranges.release(first);
  ranges.allocate(600);
  ranges.allocate(300);
  EXPECT_EQ(ranges.taken(), 900u);
  EXPECT_EQ(ranges.peak(), 1000u);
}

TEST(RangeAllocator, RefusesToReleaseWhatWasNotTaken) {
  RangeAllocator ranges(64, 16);
  ranges.allocate(32);
  EXPECT_THROW(ranges.release(16), Error);
  ranges.release(0);
  EXPECT_THROW(ranges.release(0), Error);
  EXPECT_EQ(ranges.taken(), 0u);
}

TEST(MemoryPool, GivesPiecesBackWhenTheyGo) {
  const Buffer memory = allocate_host(2 * kPage);
  MemoryPool pool(span_of(memory));
  {
    const PoolBlock first = pool.acquire(kPage);
    const PoolBlock second = pool.acquire(1);
    EXPECT_EQ(first.memory().data(), memory.data());
    EXPECT_EQ(second.memory().data(), memory.data() + kPage);
    EXPECT_EQ(second.memory().size(), 1u);
  }
  PoolBlock all = pool.acquire(2 * kPage);
  EXPECT_TRUE(all);
  PoolBlock moved = std::move(all);
  moved = PoolBlock();
  EXPECT_EQ(pool.acquire(2 * kPage).memory().size(), 2 * kPage);
}

TEST(MemoryPool, RefusesWhatItCanNeverHold) {
  const Buffer memory = allocate_host(2 * kPage);
  MemoryPool pool(span_of(memory));
  test::expect_message<Error>([&] { pool.acquire(2 * kPage + 1); },
                              {"a buffer of 8193 bytes was asked from a pool of 8192"});
  MemoryPool nothing{{}};
  EXPECT_THROW(nothing.acquire(1), Error);
}

TEST(MemoryPool, ServesInTheOrderOfTheCallsEvenWhenALaterOneWouldFit) {
  const Buffer memory = allocate_host(4 * kPage);
  MemoryPool pool(span_of(memory));
  PoolBlock held = pool.acquire(3 * kPage);
  std::atomic<int> served = 0;
  int large_place = 0;
  int small_place = 0;
  std::atomic<bool> large_called = false;
  std::thread large([&] {
    large_called = true;
    const PoolBlock block = pool.acquire(4 * kPage);  // all of it: nobody is served beside it
    large_place = ++served;
  });
  while (!large_called) std::this_thread::yield();
  std::this_thread::sleep_for(30ms);  // it sleeps inside acquire() by now
  std::thread small([&] {
    const PoolBlock block = pool.acquire(kPage);  // there is room for it all the time
    small_place = ++served;
  });
  std::this_thread::sleep_for(30ms);
  EXPECT_EQ(served, 0) << "the small request overtook the large one, which may then starve";
  held.reset();
  large.join();
  small.join();
  EXPECT_EQ(large_place, 1);
  EXPECT_EQ(small_place, 2);
}

TEST(MemoryPool, CloseEndsWaitingAndLaterCalls) {
  const Buffer memory = allocate_host(kPage);
  MemoryPool pool(span_of(memory));
  const PoolBlock held = pool.acquire(kPage);
  std::atomic<int> failed = 0;
  std::vector<std::thread> waiting;
  for (int i = 0; i < 3; ++i) {
    waiting.emplace_back([&] {
      try {
        pool.acquire(kPage);
      } catch (const Error&) {
        ++failed;
      }
    });
  }
  std::this_thread::sleep_for(20ms);
  pool.close();
  for (std::thread& thread : waiting) thread.join();
  EXPECT_EQ(failed, 3);
  EXPECT_THROW(pool.acquire(1), Error);
}

TEST(MemoryPool, NeverHandsOutAByteTwice) {
  const Buffer memory = allocate_host(8 * kPage);
  MemoryPool pool(span_of(memory));
  std::atomic<int> torn = 0;
  std::vector<std::thread> users;
  for (int user = 1; user <= 4; ++user) {
    users.emplace_back([&, user] {
      for (int round = 0; round < 200; ++round) {
        const std::size_t pages = 1 + static_cast<std::size_t>((user * 7 + round) % 5);
        const PoolBlock block = pool.acquire(pages * kPage);
        const auto mark = static_cast<std::byte>(user);
        for (std::byte& byte : block.memory()) byte = mark;
        for (const std::byte byte : block.memory()) torn += byte != mark;
      }
    });
  }
  for (std::thread& thread : users) thread.join();
  EXPECT_EQ(torn, 0);
}

}  // namespace
}  // namespace strata
