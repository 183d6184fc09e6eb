#include "launch/core_binding.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <thread>

#include "core/error.h"
#include "core/process.h"

namespace strata {
namespace {

// Two packages of two cores of two hardware threads, numbered as Linux often does: first one thread
// of every core, then the siblings.
std::vector<HardwareThread> two_packages() {
  std::vector<HardwareThread> threads;
  for (int cpu = 0; cpu < 8; ++cpu) threads.push_back({cpu, cpu % 4 / 2, cpu % 2});
  return threads;
}

std::vector<int> cpus_of_share(std::vector<HardwareThread> threads, int rank, int size) {
  std::vector<int> cpus;
  for (const HardwareThread& thread : share_of_threads(std::move(threads), rank, size)) {
    cpus.push_back(thread.cpu);
  }
  return cpus;
}

TEST(ShareOfThreads, KeepsSiblingsAndPackagesTogether) {
  EXPECT_EQ(cpus_of_share(two_packages(), 0, 2), (std::vector<int>{0, 4, 1, 5}));
  EXPECT_EQ(cpus_of_share(two_packages(), 1, 2), (std::vector<int>{2, 6, 3, 7}));
  EXPECT_EQ(cpus_of_share(two_packages(), 3, 4), (std::vector<int>{3, 7}));
}

TEST(ShareOfThreads, GivesEveryThreadToOneRank) {
  for (int size = 1; size <= 8; ++size) {
    std::vector<int> all;
    for (int rank = 0; rank < size; ++rank) {
      const std::vector<int> share = cpus_of_share(two_packages(), rank, size);
      EXPECT_GE(static_cast<int>(share.size()), 8 / size);
      EXPECT_LE(static_cast<int>(share.size()), (8 + size - 1) / size);
      all.insert(all.end(), share.begin(), share.end());
    }
    std::ranges::sort(all);
    EXPECT_EQ(all, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7})) << size << " ranks";
  }
}

TEST(ShareOfThreads, SharesCoresBetweenMoreRanksThanThereAre) {
  for (int rank = 0; rank < 19; ++rank)
    EXPECT_EQ(cpus_of_share(two_packages(), rank, 19).size(), 1u);
}

TEST(FormatCpus, WritesRangesAsTheKernelDoes) {
  EXPECT_EQ(format_cpus(std::vector<int>{}), "");
  EXPECT_EQ(format_cpus(std::vector<int>{3}), "3");
  EXPECT_EQ(format_cpus(std::vector<int>{0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
}

TEST(BindToShare, NeverAsksForMoreThreadsThanItHasCores) {
  // On a thread of its own: the mask belongs to the thread.
  std::thread([] {
    const Binding binding = bind_to_share(BindMode::kKeep);
    EXPECT_EQ(binding.cpus, allowed_cores());
    EXPECT_GE(binding.compute_threads, 1);
    EXPECT_LE(binding.compute_threads, static_cast<int>(binding.cpus.size()));
    EXPECT_NE(binding.description.find(format_cpus(binding.cpus)), std::string::npos)
        << binding.description;
  }).join();
}

}  // namespace
}  // namespace strata
