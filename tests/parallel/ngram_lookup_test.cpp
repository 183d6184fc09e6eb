#include "parallel/ngram_lookup.h"

#include <gtest/gtest.h>

#include <random>

namespace strata {
namespace {

using Ids = std::vector<std::int32_t>;

/// The same by trying every place.
Ids searched(const Ids& text, std::int64_t most) {
  const std::size_t size = text.size();
  for (const std::size_t tokens : {3u, 2u, 1u}) {
    for (std::size_t end = size - 1; end >= tokens && size > tokens; --end) {
      if (!std::equal(text.end() - static_cast<std::ptrdiff_t>(tokens), text.end(),
                      text.begin() + static_cast<std::ptrdiff_t>(end - tokens))) {
        continue;
      }
      Ids all = text;
      for (std::int64_t i = 0; i < most; ++i) all.push_back(all[end + static_cast<std::size_t>(i)]);
      return {all.begin() + static_cast<std::ptrdiff_t>(size), all.end()};
    }
  }
  return {};
}

TEST(NgramLookup, ProposesWhatFollowedTheLongestAndLatestAgreement) {
  NgramLookup lookup;
  EXPECT_EQ(lookup.propose(Ids{5, 1, 2, 3, 60, 1, 2, 3, 61, 9, 2, 3, 62, 3, 63, 1, 2, 3}, 4),
            (Ids{61, 9, 2, 3}));
  EXPECT_EQ(NgramLookup().propose(Ids{1, 2, 7, 8, 2, 9, 3, 2}, 1), Ids{9});
}

TEST(NgramLookup, HasNothingForANewToken) {
  EXPECT_EQ(NgramLookup().propose(Ids{1, 2, 3, 4}, 5), Ids());
  EXPECT_EQ(NgramLookup().propose(Ids{1}, 5), Ids());
  EXPECT_EQ(NgramLookup().propose(Ids{}, 5), Ids());
  EXPECT_EQ(NgramLookup().propose(Ids{1, 1}, 0), Ids());
}

TEST(NgramLookup, TakesWhatRepeatsToRepeatOn) {
  EXPECT_EQ(NgramLookup().propose(Ids{4, 4}, 3), (Ids{4, 4, 4}));
  EXPECT_EQ(NgramLookup().propose(Ids{9, 1, 2, 3, 1, 2, 3, 1}, 7), (Ids{2, 3, 1, 2, 3, 1, 2}));
}

TEST(NgramLookup, FindsWhatASearchFindsHoweverTheTextGrows) {
  std::mt19937 random(1);
  for (const int vocabulary : {2, 5, 40}) {
    NgramLookup lookup;
    Ids text;
    while (text.size() < 200) {
      for (unsigned more = 1 + random() % 4; more > 0; --more) {
        text.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary)));
      }
      ASSERT_EQ(lookup.propose(text, 6), searched(text, 6)) << text.size() << " tokens";
    }
  }
}

}  // namespace
}  // namespace strata
