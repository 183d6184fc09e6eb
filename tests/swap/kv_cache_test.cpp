#include "swap/kv_cache.h"

#include <gtest/gtest.h>

#include <set>

#include "core/device.h"

namespace strata {
namespace {

class KvCacheTest : public testing::Test {
 protected:
  static constexpr int kPages = 5;
  KvShape shape_{.layers = 3, .kv_heads = 2, .head_size = 16, .dtype = Dtype::kBf16};
  Buffer memory_ = allocate_host(shape_.page_bytes() * kPages + 100);
  KvCache cache_{shape_, {memory_.data(), memory_.bytes()}};
};

TEST_F(KvCacheTest, LaysEveryPageOfEveryLayerIntoItsMemory) {
  EXPECT_EQ(shape_.page_bytes(), 3u * 2 * 2 * 16 * 64 * 2);
  EXPECT_EQ(cache_.page_count(), kPages);
  std::set<std::byte*> begins;
  for (int layer = 0; layer < shape_.layers; ++layer) {
    const PagedKv kv = cache_.layer(layer);
    EXPECT_EQ(kv.page_bytes(), kv.page_stride);
    for (int page = 0; page < kPages; ++page) {
      std::byte* begin = kv.memory + static_cast<std::size_t>(page) * kv.page_stride;
      EXPECT_GE(begin, memory_.data());
      EXPECT_LE(begin + kv.page_bytes(), memory_.data() + memory_.bytes());
      begins.insert(begin);
    }
  }
  EXPECT_EQ(begins.size(), static_cast<std::size_t>(shape_.layers * kPages));
}

TEST_F(KvCacheTest, GrowsBySixtyFourTokensAndNotAtAllWithoutRoom) {
  const KvCache::Id a = cache_.add(), b = cache_.add();
  EXPECT_TRUE(cache_.grow(a, 1));
  EXPECT_TRUE(cache_.grow(a, 64));
  EXPECT_EQ(cache_.pages(a).size(), 1u);
  EXPECT_TRUE(cache_.grow(a, 65));
  EXPECT_TRUE(cache_.grow(b, 128));
  EXPECT_EQ(cache_.free_pages(), 1);
  EXPECT_FALSE(cache_.grow(b, 300));
  EXPECT_EQ(cache_.pages(b).size(), 2u);
  EXPECT_EQ(cache_.free_pages(), 1);
  std::set<std::int32_t> pages(cache_.pages(a).begin(), cache_.pages(a).end());
  pages.insert(cache_.pages(b).begin(), cache_.pages(b).end());
  EXPECT_EQ(pages.size(), 4u);
  cache_.remove(a);
  EXPECT_EQ(cache_.free_pages(), 3);
  EXPECT_TRUE(cache_.grow(b, 300));
  EXPECT_EQ(cache_.add(), a);
}

TEST_F(KvCacheTest, SharedPagesStayWhileAnyoneHasThem) {
  const KvCache::Id a = cache_.add();
  ASSERT_TRUE(cache_.grow(a, 150));
  const KvCache::Id b = cache_.add_sharing(a, 2);
  EXPECT_EQ(cache_.free_pages(), 2);
  EXPECT_TRUE(std::ranges::equal(cache_.pages(b), cache_.pages(a).first(2)));
  ASSERT_TRUE(cache_.grow(b, 150));
  EXPECT_NE(cache_.pages(b)[2], cache_.pages(a)[2]);
  cache_.remove(a);
  EXPECT_EQ(cache_.free_pages(), 2);
  cache_.remove(b);
  EXPECT_EQ(cache_.free_pages(), kPages);
}

TEST_F(KvCacheTest, AWindowThatPassedGivesPagesBack) {
  const KvCache::Id a = cache_.add();
  ASSERT_TRUE(cache_.grow(a, 200));
  cache_.pass(a, 127);
  EXPECT_EQ(cache_.free_pages(), 2);
  EXPECT_EQ(cache_.pages(a)[0], -1);
  EXPECT_GE(cache_.pages(a)[1], 0);
  cache_.pass(a, 128);
  EXPECT_EQ(cache_.free_pages(), 3);
  EXPECT_TRUE(cache_.grow(a, 320));
  cache_.remove(a);
  EXPECT_EQ(cache_.free_pages(), kPages);
}

}  // namespace
}  // namespace strata
