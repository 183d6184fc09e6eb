#include "parallel/collective_benchmark.h"

#include <gtest/gtest.h>

#include <mutex>

#include "tests/support/run_on_threads.h"

namespace strata::test {
namespace {

TEST(CollectiveBenchmark, GivesEveryRankTheSameFigures) {
  std::mutex mutex;
  std::vector<std::vector<CollectiveRates>> of_ranks;
  run_on_threads(3, [&](Communicator& communicator) {
    const std::size_t sizes[] = {64, 100'000};
    const auto rates = measure_collectives(communicator, sizes, 0.001);
    const std::lock_guard lock(mutex);
    of_ranks.push_back(rates);
  });
  ASSERT_EQ(of_ranks.size(), 3u);
  for (const auto& rates : of_ranks) {
    ASSERT_EQ(rates.size(), 2u);
    EXPECT_EQ(rates[0].block_bytes, 60u);  // equal parts of whole numbers
    EXPECT_EQ(rates[1].block_bytes, 99'996u);
    for (std::size_t i = 0; i < rates.size(); ++i) {
      EXPECT_GT(rates[i].all_gather, 0);
      EXPECT_EQ(rates[i].all_gather, of_ranks[0][i].all_gather);
      EXPECT_EQ(rates[i].reduce_scatter, of_ranks[0][i].reduce_scatter);
      EXPECT_EQ(rates[i].memcpy, of_ranks[0][i].memcpy);
    }
  }
}

}  // namespace
}  // namespace strata::test
