#include "swap/kv_swap.h"

#include <gtest/gtest.h>

#include <cstring>

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

TEST_F(KvSwapTest, GivesSequencesBackIntoOtherPages) {
  KvSwap swap(cache_, shape_, space(30));
  EXPECT_EQ(swap.free_pages(), 30);
  const KvCache::Id a = cache_.add(), b = cache_.add();
  ASSERT_TRUE(cache_.grow(a, 10 * 64 - 3));
  ASSERT_TRUE(cache_.grow(b, 64 + 1));
  fill(a, 1);
  fill(b, 2);
  const auto stored_a = swap.store(a, 10 * 64 - 3);
  const auto stored_b = swap.store(b, 64 + 1);
  ASSERT_TRUE(stored_a && stored_b);
  EXPECT_EQ(stored_a->tokens, 10 * 64 - 3);
  EXPECT_EQ(swap.free_pages(), 18);
  cache_.remove(a);
  cache_.remove(b);
  std::memset(memory_.data(), 0, memory_.bytes());
  const KvCache::Id c = cache_.add(), d = cache_.add();
  ASSERT_TRUE(cache_.grow(c, 64 + 1));  // the other order: pages change places
  ASSERT_TRUE(cache_.grow(d, 10 * 64 - 3));
  swap.load(*stored_b, c);
  swap.load(*stored_a, d);
  expect_filled(c, 2, 2);
  expect_filled(d, 1, 10);
  EXPECT_EQ(swap.free_pages(), 30);
}

TEST_F(KvSwapTest, HoldsAsMuchAsItHasRoomFor) {
  KvSwap swap(cache_, shape_, space(3));
  const KvCache::Id a = cache_.add();
  ASSERT_TRUE(cache_.grow(a, 4 * 64));
  EXPECT_FALSE(swap.store(a, 4 * 64));
  EXPECT_EQ(swap.free_pages(), 3) << "nothing is taken by what does not fit";
  const auto stored = swap.store(a, 3 * 64);
  ASSERT_TRUE(stored);
  EXPECT_FALSE(swap.store(a, 1));
  swap.drop(*stored);
  EXPECT_TRUE(swap.store(a, 1));
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
  const auto stored = swap.store(a, 5 * 64);
  ASSERT_TRUE(stored);
  std::memset(memory.data(), 0, memory.bytes());
  swap.load(*stored, a);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < memory.bytes(); i += 4096) {
    wrong += memory.data()[i] != static_cast<std::byte>(i / 4096 * 7) ? 1u : 0u;
  }
  EXPECT_EQ(wrong, 0u);
}

}  // namespace
}  // namespace strata
