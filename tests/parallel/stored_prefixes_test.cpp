#include "parallel/stored_prefixes.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>

#include "core/units.h"
#include "tests/support/temporary_directory.h"

namespace strata {
namespace {

using Ids = std::vector<std::int32_t>;

class StoredPrefixesTest : public testing::Test {
 protected:
  static constexpr int kPages = 16;

  void make_swap(int slots) {
    const std::vector<SwapDirectory> directories{{.path = directory_.path()}};
    const std::uint64_t bytes =
        static_cast<std::uint64_t>(slots) * round_up(shape_.page_bytes(), kIoAlignment);
    swap_ = std::make_unique<KvSwap>(cache_, shape_,
                                     std::make_unique<SwapSpace>(*engine_, directories, bytes));
  }
  std::byte* page(std::int32_t index) {
    return memory_.data() + static_cast<std::size_t>(index) * shape_.page_bytes();
  }
  /// What the pages of a text hold follows from its tokens.
  static int mark(const Ids& tokens, std::size_t page) {
    int mark = 1;
    for (std::size_t i = 0; i < (page + 1) * kPageTokens; ++i) mark = mark * 31 + tokens[i];
    return mark;
  }
  /// Computes a text, stores its full pages and gives its memory to others.
  void store(StoredPrefixes& prefixes, const Ids& tokens) {
    const KvCache::Id id = cache_.add();
    ASSERT_TRUE(cache_.grow(id, static_cast<std::int64_t>(tokens.size())));
    const std::size_t full = tokens.size() / kPageTokens;
    for (std::size_t i = 0; i < full; ++i) {
      const int value = mark(tokens, i);
      std::memcpy(page(cache_.pages(id)[i]), &value, sizeof(value));
    }
    prefixes.store(tokens, cache_.pages(id).first(full));
    cache_.remove(id);
  }
  /// How many pages are found; they hold what they should, from `first` on.
  std::size_t find(StoredPrefixes& prefixes, const Ids& tokens, std::size_t first = 0) {
    const std::vector<std::int32_t> slots = prefixes.find(tokens, tokens.size() / kPageTokens);
    const std::size_t found = slots.size();
    if (found <= first) return found;
    std::memset(memory_.data(), 0, memory_.bytes());
    const KvCache::Id id = cache_.add();
    EXPECT_TRUE(cache_.grow(id, static_cast<std::int64_t>(found) * kPageTokens));
    swap_->load(std::span(slots).subspan(first), cache_.pages(id).subspan(first));
    for (std::size_t i = 0; i < found; ++i) {
      int value = 0;
      std::memcpy(&value, page(cache_.pages(id)[i]), sizeof(value));
      EXPECT_EQ(value, i < first ? 0 : mark(tokens, i)) << "page " << i;
    }
    cache_.remove(id);
    return found;
  }
  /// `pages` pages and a few tokens; page i is of kind kinds[i].
  static Ids text(const std::vector<int>& kinds) {
    Ids tokens;
    for (const int kind : kinds) {
      for (std::int32_t i = 0; i < kPageTokens; ++i) tokens.push_back(100 * kind + i);
    }
    tokens.resize(tokens.size() + 7, 3);
    return tokens;
  }

  KvShape shape_{.layers = 1, .kv_heads = 1, .head_size = 8, .dtype = Dtype::kBf16};
  test::TemporaryDirectory directory_;
  std::unique_ptr<IoEngine> engine_ = make_io_engine({});
  Buffer memory_ = allocate_host(shape_.page_bytes() * kPages);
  KvCache cache_{shape_, {memory_.data(), memory_.bytes()}};
  std::unique_ptr<KvSwap> swap_;
};

TEST_F(StoredPrefixesTest, KeepsBeginningsThatAreAlikeOnce) {
  make_swap(12);
  {
    StoredPrefixes prefixes(*swap_);
    store(prefixes, text({1, 2, 3}));
    store(prefixes, text({1, 2, 4, 5}));
    store(prefixes, text({1, 2}));
    EXPECT_EQ(swap_->free_slots(), 12u - 5u);
    EXPECT_EQ(find(prefixes, text({1, 2, 3})), 3u);
    EXPECT_EQ(find(prefixes, text({1, 2, 4, 6})), 3u);
    EXPECT_EQ(find(prefixes, text({1, 2, 4, 5}), 2), 4u) << "from the third page on";
    EXPECT_EQ(find(prefixes, text({2, 3})), 0u) << "there is such a page, but after another";
    EXPECT_EQ(prefixes.find(text({1, 2, 3}), 1).size(), 1u);
    EXPECT_EQ(find(prefixes, {}), 0u);
  }
  EXPECT_EQ(swap_->free_slots(), 12u) << "it gives back what it took";
}

TEST_F(StoredPrefixesTest, DropsWhatWasNotUsedForLongestFromItsEnd) {
  make_swap(6);
  StoredPrefixes prefixes(*swap_);
  store(prefixes, text({1, 2, 3}));
  store(prefixes, text({4, 5, 6}));
  EXPECT_EQ(find(prefixes, text({1, 2, 3})), 3u);
  store(prefixes, text({1, 7}));
  EXPECT_EQ(find(prefixes, text({4, 5, 6})), 2u);
  EXPECT_TRUE(prefixes.make_room(2));
  EXPECT_EQ(find(prefixes, text({1, 2, 3})), 1u) << "its first page was used with {1, 7}";
  EXPECT_EQ(find(prefixes, text({1, 7})), 2u);
  EXPECT_EQ(find(prefixes, text({4, 5, 6})), 2u);
  EXPECT_FALSE(prefixes.make_room(7));
  EXPECT_EQ(swap_->free_slots(), 6u);
}

TEST_F(StoredPrefixesTest, KeepsTheBeginningOfWhatHasNoRoom) {
  make_swap(3);
  StoredPrefixes prefixes(*swap_);
  store(prefixes, text({9}));
  store(prefixes, text({1, 2, 3, 4, 5}));
  EXPECT_EQ(find(prefixes, text({1, 2, 3, 4, 5})), 3u);
  store(prefixes, text({1, 2, 3, 4, 5}));
  EXPECT_EQ(find(prefixes, text({1, 2, 3, 4, 5})), 3u);
  EXPECT_EQ(find(prefixes, text({9})), 0u);
}

TEST_F(StoredPrefixesTest, NeverGivesWrongPages) {
  make_swap(9);
  StoredPrefixes prefixes(*swap_);
  std::mt19937 random(7);
  std::size_t found = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<int> kinds(1 + random() % 4);
    for (int& kind : kinds) kind = static_cast<int>(random() % 2);
    const Ids tokens = text(kinds);
    found += find(prefixes, tokens);
    if (round % 3 == 0) prefixes.make_room(random() % 10);
    store(prefixes, tokens);
    EXPECT_EQ(find(prefixes, tokens), kinds.size());
  }
  EXPECT_GT(found, 100u);
}

}  // namespace
}  // namespace strata
