#include "swap/stripe_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "core/error.h"

namespace strata {
namespace {

constexpr std::uint64_t kPage = 4096;

std::vector<StripeRun> sorted(std::vector<StripeRun> runs) {
  std::sort(runs.begin(), runs.end(), [](const StripeRun& a, const StripeRun& b) {
    return std::pair(a.file, a.offset) < std::pair(b.file, b.offset);
  });
  return runs;
}

TEST(StripeMap, UsesEveryByteOfEveryFileExactlyOnce) {
  const std::vector<std::vector<double>> cases{{1}, {1, 1}, {7, 2, 3}, {1.1e9, 3.3e9}, {1, 100}};
  for (const std::vector<double>& weights : cases) {
    const StripeMap map(weights);
    for (const std::uint64_t bytes :
         {kPage, kStripeBytes, 17 * kStripeBytes + 3 * kPage, 200 * kStripeBytes - kPage}) {
      std::vector<StripeRun> runs;
      for (std::uint64_t offset = 0; offset < bytes;) {  // in awkward pieces
        const std::uint64_t piece = std::min(bytes - offset, 3 * kStripeBytes / 2 + kPage);
        for (const StripeRun& run : map.map(offset, piece)) runs.push_back(run);
        offset += piece;
      }
      std::vector<std::uint64_t> used(weights.size(), 0);
      for (const StripeRun& run : sorted(runs)) {
        EXPECT_EQ(run.offset, used[run.file]) << "a gap or an overlap in file " << run.file;
        used[run.file] = run.offset + run.bytes;
      }
      for (std::size_t file = 0; file < weights.size(); ++file) {
        EXPECT_EQ(map.file_bytes(file, bytes), used[file]);
      }
      EXPECT_EQ(std::accumulate(used.begin(), used.end(), std::uint64_t{0}), bytes);
    }
  }
}

TEST(StripeMap, SharesBytesInProportionToTheWeights) {
  const std::vector<double> weights{5.3, 3.1, 1.9};
  const StripeMap map(weights);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  const std::uint64_t bytes = 10000 * kStripeBytes;
  for (std::size_t file = 0; file < weights.size(); ++file) {
    const double share =
        static_cast<double>(map.file_bytes(file, bytes)) / static_cast<double>(bytes);
    EXPECT_NEAR(share, weights[file] / sum, 0.02);
  }
}

TEST(StripeMap, InterleavesTheFilesInsteadOfFillingOneAfterTheOther) {
  const StripeMap map(std::vector<double>{3, 1});
  const std::vector<StripeRun> runs = map.map(0, 8 * kStripeBytes);
  std::map<std::size_t, std::uint64_t> longest;
  for (const StripeRun& run : runs) longest[run.file] = std::max(longest[run.file], run.bytes);
  EXPECT_EQ(longest[0], 3 * kStripeBytes);
  EXPECT_EQ(longest[1], kStripeBytes);
}

TEST(StripeMap, KeepsOneFileInOneRun) {
  const StripeMap map(std::vector<double>{42});
  const StripeRun whole{0, kPage, 100 * kStripeBytes};
  EXPECT_EQ(map.map(kPage, 100 * kStripeBytes), std::vector<StripeRun>{whole});
}

TEST(StripeMap, GivesEvenTheSlowestFileAShare) {
  const StripeMap map(std::vector<double>{1000, 1});
  EXPECT_EQ(map.share(1), 1u);
  EXPECT_GE(map.share(0), 32u);
}

TEST(StripeMap, RefusesWeightsThatAreNotPositive) {
  for (const double wrong : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_THROW(StripeMap(std::vector<double>{1, wrong}), UsageError) << wrong;
  }
}

}  // namespace
}  // namespace strata
