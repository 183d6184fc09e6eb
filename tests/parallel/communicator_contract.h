#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace strata::test {

/// One way to have a world of ranks. `run` calls its argument once on every rank of this process.
struct World {
  std::string name;
  std::function<void(const std::function<void(Communicator&)>&)> run;
};

inline void PrintTo(const World& world, std::ostream* out) { *out << world.name; }

/// What every Communicator promises, whatever carries its bytes. A file that includes this says on
/// which worlds with INSTANTIATE_TEST_SUITE_P. Worlds use staging pieces of kPieceBytes, so that
/// sizes below, at and far above one piece are quick to test.
class CommunicatorContract : public testing::TestWithParam<World> {
 public:
  static constexpr std::size_t kPieceBytes = 4096;
  /// Elements per rank: nothing, less than a line, odd, one piece, and many with a ragged end.
  static constexpr std::int64_t kCounts[] = {0, 1, 3, 31, 1024, 1025, 20011};

 protected:
  static void on_every_rank(const std::function<void(Communicator&)>& body) {
    GetParam().run(body);
  }
};

/// A value whose sums depend on their order, different for every rank and index.
inline float sample(int rank, std::int64_t i) {
  const auto mixed = static_cast<std::uint32_t>(i * 2654435761LL + rank * 40503LL);
  const float fraction = static_cast<float>(mixed % 100003u) / 100003.0f - 0.5f;
  return std::ldexp(fraction, static_cast<int>((mixed >> 3) % 24u));
}

/// sample(0, i) + sample(1, i) + ..., in the order of the ranks, in fp32.
inline float sum_of_samples(int ranks, std::int64_t i) {
  float sum = sample(0, i);
  for (int rank = 1; rank < ranks; ++rank) sum += sample(rank, i);
  return sum;
}

inline std::vector<float> samples(int rank, std::int64_t numel) {
  std::vector<float> values(static_cast<std::size_t>(numel));
  for (std::int64_t i = 0; i < numel; ++i) values[static_cast<std::size_t>(i)] = sample(rank, i);
  return values;
}

inline TensorView view(std::vector<float>& values) {
  return {values.data(), Dtype::kF32, Shape{static_cast<std::int64_t>(values.size())}};
}

/// Compares bits, not values: the promise is the same bits.
inline ::testing::AssertionResult same_bits(float got, float want) {
  if (std::memcmp(&got, &want, sizeof(float)) == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << got << " instead of " << want;
}

TEST_P(CommunicatorContract, NumbersRanksWithinTheGroup) {
  on_every_rank([](Communicator& world) {
    EXPECT_GE(world.size(), 1);
    EXPECT_GE(world.rank(), 0);
    EXPECT_LT(world.rank(), world.size());
    EXPECT_EQ(world.sum(world.rank()), world.size() * (world.size() - 1) / 2.0);
  });
}

TEST_P(CommunicatorContract, GathersShardsByRank) {
  on_every_rank([](Communicator& world) {
    for (const std::int64_t numel : kCounts) {
      std::vector<float> shard = samples(world.rank(), numel);
      std::vector<float> full(shard.size() * static_cast<std::size_t>(world.size()), -1.0f);
      world.all_gather(view(shard), view(full));
      world.stream().synchronize();
      for (int rank = 0; rank < world.size(); ++rank) {
        for (std::int64_t i = 0; i < numel; ++i) {
          ASSERT_TRUE(same_bits(full[static_cast<std::size_t>(rank * numel + i)], sample(rank, i)))
              << "numel " << numel << " rank " << rank << " element " << i;
        }
      }
    }
  });
}

TEST_P(CommunicatorContract, GathersInPlace) {
  on_every_rank([](Communicator& world) {
    for (const std::int64_t numel : kCounts) {
      std::vector<float> full(static_cast<std::size_t>(numel * world.size()), -1.0f);
      const TensorView mine = view(full).flat(world.rank() * numel, numel);
      for (std::int64_t i = 0; i < numel; ++i) mine.as<float>()[i] = sample(world.rank(), i);
      world.all_gather(mine, view(full));
      world.stream().synchronize();
      for (int rank = 0; rank < world.size(); ++rank) {
        for (std::int64_t i = 0; i < numel; ++i) {
          ASSERT_TRUE(same_bits(full[static_cast<std::size_t>(rank * numel + i)], sample(rank, i)))
              << "numel " << numel << " rank " << rank << " element " << i;
        }
      }
    }
  });
}

TEST_P(CommunicatorContract, GathersAnyDtype) {
  on_every_rank([](Communicator& world) {
    constexpr std::int64_t kBytes = 9001;  // no multiple of anything
    std::vector<std::uint8_t> shard(kBytes, static_cast<std::uint8_t>(world.rank() + 1));
    std::vector<std::uint8_t> full(shard.size() * static_cast<std::size_t>(world.size()));
    world.all_gather({shard.data(), Dtype::kU8, Shape{kBytes}},
                     {full.data(), Dtype::kU8, Shape{kBytes * world.size()}});
    world.stream().synchronize();
    for (std::size_t i = 0; i < full.size(); ++i) ASSERT_EQ(full[i], i / shard.size() + 1);
  });
}

TEST_P(CommunicatorContract, ReducesEveryShardInTheOrderOfTheRanks) {
  on_every_rank([](Communicator& world) {
    for (const std::int64_t numel : kCounts) {
      std::vector<float> full = samples(world.rank(), numel * world.size());
      const std::vector<float> before = full;
      std::vector<float> shard(static_cast<std::size_t>(numel), -1.0f);
      world.reduce_scatter_sum(view(full), view(shard));
      world.stream().synchronize();
      EXPECT_EQ(full, before);
      for (std::int64_t i = 0; i < numel; ++i) {
        ASSERT_TRUE(same_bits(shard[static_cast<std::size_t>(i)],
                              sum_of_samples(world.size(), world.rank() * numel + i)))
            << "numel " << numel << " element " << i;
      }
    }
  });
}

TEST_P(CommunicatorContract, ReducesEveryShardInPlace) {
  on_every_rank([](Communicator& world) {
    for (const std::int64_t numel : kCounts) {
      std::vector<float> full = samples(world.rank(), numel * world.size());
      const TensorView mine = view(full).flat(world.rank() * numel, numel);
      world.reduce_scatter_sum(view(full), mine);
      world.stream().synchronize();
      for (std::int64_t i = 0; i < numel * world.size(); ++i) {
        const bool is_mine = i / numel == world.rank();
        const float want = is_mine ? sum_of_samples(world.size(), i) : sample(world.rank(), i);
        ASSERT_TRUE(same_bits(full[static_cast<std::size_t>(i)], want))
            << "numel " << numel << " element " << i;
      }
    }
  });
}

TEST_P(CommunicatorContract, ReducesToEveryRootInTheOrderOfTheRanks) {
  on_every_rank([](Communicator& world) {
    for (const std::int64_t numel : kCounts) {
      for (int root = 0; root < world.size(); ++root) {
        std::vector<float> part = samples(world.rank(), numel);
        std::vector<float> result(part.size(), -1.0f);
        world.reduce_sum(view(part), view(result), root);
        std::vector<float> in_place = part;
        world.reduce_sum(view(in_place), view(in_place), root);
        world.stream().synchronize();
        for (std::int64_t i = 0; i < numel; ++i) {
          const auto at = static_cast<std::size_t>(i);
          const bool is_root = world.rank() == root;
          const float sum = sum_of_samples(world.size(), i);
          ASSERT_TRUE(same_bits(result[at], is_root ? sum : -1.0f)) << "numel " << numel;
          ASSERT_TRUE(same_bits(in_place[at], is_root ? sum : part[at])) << "numel " << numel;
        }
      }
    }
  });
}

TEST_P(CommunicatorContract, GivesEveryRankTheSameSums) {
  on_every_rank([](Communicator& world) {
    for (const std::int64_t numel : kCounts) {
      std::vector<float> values = samples(world.rank(), numel);
      world.all_reduce_sum(view(values));
      world.stream().synchronize();
      for (std::int64_t i = 0; i < numel; ++i) {
        ASSERT_TRUE(same_bits(values[static_cast<std::size_t>(i)], sum_of_samples(world.size(), i)))
            << "numel " << numel << " element " << i;
      }
    }
  });
}

TEST_P(CommunicatorContract, BroadcastsFromEveryRoot) {
  on_every_rank([](Communicator& world) {
    for (const std::int64_t numel : kCounts) {
      for (int root = 0; root < world.size(); ++root) {
        std::vector<float> values = samples(world.rank(), numel);
        world.broadcast(std::as_writable_bytes(std::span(values)), root);
        world.stream().synchronize();
        EXPECT_EQ(values, samples(root, numel)) << "numel " << numel << " root " << root;
      }
    }
  });
}

TEST_P(CommunicatorContract, GathersBytesOfDifferentLengths) {
  on_every_rank([](Communicator& world) {
    const auto words = [](int rank) {
      return std::string(static_cast<std::size_t>(rank * 5000), static_cast<char>('a' + rank));
    };
    const std::string mine = words(world.rank());
    const auto all = world.gather_bytes(std::as_bytes(std::span(mine)));
    ASSERT_EQ(static_cast<int>(all.size()), world.size());
    for (int rank = 0; rank < world.size(); ++rank) {
      const auto& got = all[static_cast<std::size_t>(rank)];
      const std::string want = words(rank);
      ASSERT_EQ(got.size(), want.size());
      for (std::size_t i = 0; i < want.size(); ++i) {
        ASSERT_EQ(static_cast<char>(got[i]), want[i]) << "rank " << rank;
      }
    }
  });
}

TEST_P(CommunicatorContract, FindsTheLargestNumber) {
  on_every_rank([](Communicator& world) {
    EXPECT_EQ(world.max(-1.0 - world.rank()), -1.0);
    EXPECT_EQ(world.max(world.rank() * 2.5), (world.size() - 1) * 2.5);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_TRUE(std::isnan(world.max(world.rank() == world.size() - 1 ? nan : 1.0)));
  });
}

TEST_P(CommunicatorContract, RunsManyOperationsInTheOrderOfTheirCalls) {
  on_every_rank([](Communicator& world) {
    // Every operation uses the result of the one before, and nothing waits in between.
    const auto size = static_cast<std::size_t>(world.size());
    std::vector<float> shard(700, static_cast<float>(world.rank() + 1));
    std::vector<float> full(shard.size() * size);
    for (int round = 0; round < 20; ++round) {
      world.all_gather(view(shard), view(full));
      world.reduce_scatter_sum(view(full), view(shard));
      world.stream().enqueue([&shard, size] {
        for (float& value : shard) value /= static_cast<float>(size);
      });
    }
    world.barrier();
    for (const float value : shard) ASSERT_EQ(value, static_cast<float>(world.rank() + 1));
  });
}

TEST_P(CommunicatorContract, HoldsEveryRankAtABarrierUntilEarlierWorkIsDone) {
  on_every_rank([](Communicator& world) {
    bool done = false;
    world.stream().enqueue([&done] { done = true; });
    world.barrier();
    EXPECT_TRUE(done);
  });
}

TEST_P(CommunicatorContract, RefusesTensorsThatDoNotFit) {
  on_every_rank([](Communicator& world) {
    std::vector<float> shard(3);
    std::vector<float> full(3 * static_cast<std::size_t>(world.size()) + 1);
    EXPECT_THROW(world.all_gather(view(shard), view(full)), Error);
    EXPECT_THROW(world.reduce_scatter_sum(view(full), view(shard)), Error);
    std::vector<std::uint16_t> halves(3);
    const TensorView bf16_values(halves.data(), Dtype::kBf16, Shape{3});
    EXPECT_THROW(world.all_reduce_sum(bf16_values), Error);
    EXPECT_THROW(world.reduce_sum(view(shard), view(shard), world.size()), Error);
    EXPECT_THROW(world.broadcast(std::as_writable_bytes(std::span(shard)), -1), Error);
  });
}

}  // namespace strata::test
