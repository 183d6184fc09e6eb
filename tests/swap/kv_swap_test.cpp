#include "swap/kv_swap.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/error.h"
#include "core/units.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

class KvSwapTest : public testing::Test {
 protected:
  static constexpr int kPages = 40;

  std::unique_ptr<SwapSpace> space(int pages) {
    const std::vector<SwapDirectory> directories{{.path = directory_.path()}};
    return std::make_unique<SwapSpace>(
        *engine_, directories,
        KvSwap::space_bytes(shape_, static_cast<std::uint64_t>(pages) *
                                        round_up(shape_.page_bytes(), kIoAlignment)));
  }
  /// Every byte says whose page it is, which layer and where.
  void fill(KvCache::Id id, int seed) {
    each_byte(id, [&](std::byte& byte, int n) { byte = static_cast<std::byte>(n * 31 + seed); });
  }
  void expect_filled(KvCache::Id id, int seed, std::size_t pages) {
    int wrong = 0;
    each_byte(id, [&](std::byte& byte, int n) {
      wrong += byte != static_cast<std::byte>(n * 31 + seed) ? 1 : 0;
    });
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(cache_.pages(id).size(), pages);
  }
  template <typename Visit>
  void each_byte(KvCache::Id id, const Visit& visit) {
    int n = 0;
    for (const std::int32_t page : cache_.pages(id)) {
      for (int index = 0; index < shape_.layers; ++index) {
        const PagedKv layer = cache_.layer(index);
        std::byte* begin = layer.memory + static_cast<std::size_t>(page) * layer.page_stride;
        for (std::size_t i = 0; i < layer.page_stride; i += 61) visit(begin[i], ++n);
      }
    }
  }

  // 9216 bytes a page: not a multiple of what drives take.
  KvShape shape_{.layers = 3, .kv_heads = 1, .head_size = 8, .dtype = Dtype::kBf16};
  test::TemporaryDirectory directory_;
  std::unique_ptr<IoEngine> engine_ = make_io_engine({});
  Buffer memory_ = allocate_host(shape_.page_bytes() * kPages);
  KvCache cache_{shape_, {memory_.data(), memory_.bytes()}};
};

TEST_F(KvSwapTest, GivesPagesBackIntoOthers) {
  KvSwap swap(cache_, shape_, space(30));
  EXPECT_EQ(swap.free_slots(), 30u);
  const KvCache::Id a = cache_.add(), b = cache_.add();
  ASSERT_TRUE(cache_.grow(a, 10 * 64 - 3));
  ASSERT_TRUE(cache_.grow(b, 64 + 1));
  fill(a, 1);
  fill(b, 2);
  const std::vector<std::int32_t> stored_a = swap.store(cache_.pages(a));
  const std::vector<std::int32_t> stored_b = swap.store(cache_.pages(b));
  EXPECT_EQ(stored_a.size(), 10u);
  EXPECT_EQ(swap.free_slots(), 18u);
  cache_.remove(a);
  cache_.remove(b);
  std::memset(memory_.data(), 0, memory_.bytes());
  const KvCache::Id c = cache_.add(), d = cache_.add();
  ASSERT_TRUE(cache_.grow(c, 64 + 1));  // the other order: pages change places
  ASSERT_TRUE(cache_.grow(d, 10 * 64 - 3));
  swap.load(stored_b, cache_.pages(c));
  swap.load(stored_a, cache_.pages(d));
  expect_filled(c, 2, 2);
  expect_filled(d, 1, 10);
  EXPECT_EQ(swap.free_slots(), 18u) << "what was loaded is still there";
  const KvCache::Id e = cache_.add();
  ASSERT_TRUE(cache_.grow(e, 2 * 64));
  swap.load(stored_b, cache_.pages(e));
  expect_filled(e, 2, 2);
  swap.drop(stored_a);
  swap.drop(stored_b);
  EXPECT_EQ(swap.free_slots(), 30u);
}

TEST_F(KvSwapTest, TakesNoMoreThanThereIsRoomFor) {
  KvSwap swap(cache_, shape_, space(3));
  const KvCache::Id a = cache_.add();
  ASSERT_TRUE(cache_.grow(a, 4 * 64));
  EXPECT_THROW(swap.store(cache_.pages(a)), Error);
  EXPECT_EQ(swap.free_slots(), 3u) << "nothing is taken by what does not fit";
  const std::vector<std::int32_t> stored = swap.store(cache_.pages(a).first(3));
  EXPECT_EQ(swap.free_slots(), 0u);
  swap.drop(std::span(stored).first(1));
  EXPECT_EQ(swap.store(cache_.pages(a).last(1)).size(), 1u);
}

TEST_F(KvSwapTest, MovesMoreThanFitsOnTheWay) {
  // A page larger than the staging memory's usual share: two pieces of it.
  const KvShape large{.layers = 2, .kv_heads = 16, .head_size = 1024, .dtype = Dtype::kF32};
  const std::size_t page = large.page_bytes();
  EXPECT_EQ(KvSwap::staging_bytes(large), 2 * page);
  const Buffer memory = allocate_host(page * 5);
  KvCache cache(large, {memory.data(), memory.bytes()});
  const std::vector<SwapDirectory> directories{{.path = directory_.path()}};
  KvSwap swap(cache, large, std::make_unique<SwapSpace>(*engine_, directories, 5 * page));
  const KvCache::Id a = cache.add();
  ASSERT_TRUE(cache.grow(a, 5 * 64));
  for (std::size_t i = 0; i < memory.bytes(); i += 4096) {
    memory.data()[i] = static_cast<std::byte>(i / 4096 * 7);
  }
  const std::vector<std::int32_t> stored = swap.store(cache.pages(a));
  std::memset(memory.data(), 0, memory.bytes());
  swap.load(stored, cache.pages(a));
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < memory.bytes(); i += 4096) {
    wrong += memory.data()[i] != static_cast<std::byte>(i / 4096 * 7) ? 1u : 0u;
  }
  EXPECT_EQ(wrong, 0u);
}

}  // namespace
}  // namespace strata
