#include "parallel/replicated_communicator.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"
#include "tests/support/run_on_threads.h"

namespace strata {
namespace {

TensorView view(std::vector<float>& values) {
  return {values.data(), Dtype::kF32, {static_cast<std::int64_t>(values.size())}};
}

TEST(ReplicatedCommunicator, ReducesOverTheWorldAndCutsNothing) {
  for (const int ranks : {1, 2, 3}) {
    test::run_on_threads(ranks, [&](Communicator& world) {
      const auto group = make_replicated_communicator(world);
      EXPECT_EQ(group->rank(), 0);
      EXPECT_EQ(group->size(), 1);
      EXPECT_EQ(&group->stream(), &world.stream());
      const auto rank = static_cast<float>(world.rank());
      const auto size = static_cast<float>(ranks);
      const float ranks_sum = size * (size - 1) / 2;

      std::vector<float> scattered{rank, 10 * rank, 1};
      group->reduce_scatter_sum(view(scattered), view(scattered));
      std::vector<float> reduced{rank};
      group->reduce_sum(view(reduced), view(reduced), 0);
      group->stream().synchronize();
      EXPECT_EQ(scattered, (std::vector<float>{ranks_sum, 10 * ranks_sum, size}));
      EXPECT_EQ(reduced[0], ranks_sum) << "everywhere, not on one rank only";
    });
  }
}

TEST(ReplicatedCommunicator, WhatEveryRankHasIsNotAddedUp) {
  test::run_on_threads(3, [](Communicator& world) {
    const auto group = make_replicated_communicator(world);
    std::vector<float> weights{1.0f, 2.0f};
    group->all_gather(view(weights), view(weights));
    group->all_reduce_sum(view(weights));
    group->broadcast(std::as_writable_bytes(std::span(weights)), 0);
    group->stream().synchronize();
    EXPECT_EQ(weights, (std::vector<float>{1.0f, 2.0f}));
    EXPECT_EQ(group->sum(2.5), 2.5);
    EXPECT_EQ(group->max(-1.0), -1.0);
    const std::vector<std::byte> own{static_cast<std::byte>(world.rank())};
    EXPECT_EQ(group->gather_bytes(own), (std::vector<std::vector<std::byte>>{own}));
    group->barrier();
  });
}

TEST(ReplicatedCommunicator, RefusesOperandsThatAreNotInPlace) {
  test::run_on_threads(1, [](Communicator& world) {
    const auto group = make_replicated_communicator(world);
    std::vector<float> a(4);
    std::vector<float> b(4);
    EXPECT_THROW(group->all_gather(view(a), view(b)), Error);
    EXPECT_THROW(group->reduce_scatter_sum(view(a), view(b)), Error);
  });
}

}  // namespace
}  // namespace strata
