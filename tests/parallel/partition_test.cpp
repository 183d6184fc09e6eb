#include "parallel/partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/model/transformer.h"
#include "tests/support/messages.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

/// How often segments of all ranks' shards, cut at `chunk` elements, cover each flat element.
std::vector<int> coverage(const BlockPartition& block, std::int64_t chunk) {
  std::vector<int> covered(static_cast<std::size_t>(block.numel()));
  for (int rank = 0; rank < block.ranks(); ++rank) {
    for (std::int64_t begin = 0; begin < block.shard_numel(); begin += chunk) {
      const std::int64_t end = std::min(begin + chunk, block.shard_numel());
      std::int64_t last = 0;
      for (const UpdateSegment& segment : block.segments(rank, begin, end)) {
        EXPECT_GE(segment.begin, last) << "segments ascend and do not overlap";
        EXPECT_LT(segment.begin, segment.end);
        EXPECT_LE(segment.end, end - begin);
        last = segment.end;
        for (std::int64_t i = segment.begin; i < segment.end; ++i) {
          ++covered[static_cast<std::size_t>(rank * block.shard_numel() + begin + i)];
        }
      }
    }
  }
  return covered;
}

TEST(Partition, CoversEveryParameterOnceAndNoPadding) {
  for (const ModelConfig& config : {test::tiny_llama(), test::tiny_gpt2(true)}) {
    const Model model = make_transformer(config);
    for (int ranks = 1; ranks <= 7; ++ranks) {
      const Partition partition(model, ranks);
      ASSERT_EQ(partition.block_count(), model.block_count());
      for (int b = 0; b < model.block_count(); ++b) {
        SCOPED_TRACE(testing::Message() << config.family << ", " << ranks << " ranks, block " << b);
        const BlockPartition& block = partition.block(b);
        std::vector<int> want(static_cast<std::size_t>(block.numel()));
        for (const auto& spec : model.block(b).parameters()) {
          const Placement& placement = block.placement(spec.get());
          ASSERT_LE(placement.offset + placement.numel, block.numel());
          EXPECT_EQ(placement.numel, spec->shape.numel());
          for (std::int64_t i = 0; i < placement.numel; ++i) {
            ++want[static_cast<std::size_t>(placement.offset + i)];
          }
        }
        EXPECT_EQ(*std::ranges::max_element(want), 1) << "parameters overlap";
        EXPECT_EQ(coverage(block, block.shard_numel()), want);
        EXPECT_EQ(coverage(block, 1000), want) << "chunks of an awkward size";
      }
    }
  }
}

TEST(Partition, AlignsParametersAndShards) {
  const Model model = make_transformer(test::tiny_gpt2(false));
  for (int ranks = 1; ranks <= 7; ++ranks) {
    const Partition partition(model, ranks);
    for (int b = 0; b < partition.block_count(); ++b) {
      const BlockPartition& block = partition.block(b);
      EXPECT_EQ(block.shard_numel() % kShardAlignment, 0);
      EXPECT_EQ(block.numel(), ranks * block.shard_numel());
      EXPECT_LT(block.numel() - block.parameter_numel(),
                ranks * kShardAlignment +
                    kParameterAlignment * static_cast<std::int64_t>(block.placements().size()))
          << "more padding than alignment needs";
      for (const Placement& placement : block.placements()) {
        EXPECT_EQ(placement.offset % kParameterAlignment, 0);
      }
    }
  }
}

/// A block whose parameters a test declares, in any order.
class OddBlock final : public Block {
 public:
  OddBlock() : Block("odd") {
    declare("table", {100, 3}, {.row_tiled = true});
    declare("weight", {7, 5}, {});
    declare("frozen", {65}, {.frozen = true});
    declare("bias", {1}, {.decay = false});
  }
  Value forward(Graph&, const Value& input, const DeviceBatch&) const override { return input; }
};

TEST(Partition, RowTiledParametersComeLast) {
  const OddBlock odd;
  const BlockPartition block(odd, 1);
  ASSERT_EQ(block.placements().size(), 4u);
  EXPECT_EQ(block.placements()[0].parameter->name, "odd.weight");
  EXPECT_EQ(block.placements()[1].offset, 64);
  EXPECT_EQ(block.placements()[2].offset, 192);
  EXPECT_EQ(block.placements()[3].parameter->name, "odd.table");
  EXPECT_EQ(block.placements()[3].offset, 256);
  EXPECT_EQ(block.dense_numel(), 256);
  EXPECT_TRUE(block.row_tiled());
  EXPECT_EQ(block.parameter_numel(), 300 + 35 + 65 + 1);
  EXPECT_EQ(block.shard_numel(), 2048);
}

TEST(Partition, SegmentsLeaveOutFrozenParametersAndSayWhatDecays) {
  const OddBlock odd;
  const BlockPartition block(odd, 2);
  const std::vector<UpdateSegment> first = block.segments(0, 0, 2048);
  ASSERT_EQ(first.size(), 3u);
  EXPECT_EQ(first[0].end, 35);
  EXPECT_TRUE(first[0].decay);
  EXPECT_EQ(first[1].begin, 192);
  EXPECT_EQ(first[1].end, 193);
  EXPECT_FALSE(first[1].decay);
  EXPECT_EQ(first[2].begin, 256);
  EXPECT_EQ(first[2].end, 556);
  EXPECT_TRUE(block.segments(1, 0, 2048).empty()) << "the second shard is nothing but padding";
  const std::vector<UpdateSegment> part = block.segments(0, 20, 300);
  ASSERT_EQ(part.size(), 3u);
  EXPECT_EQ(part[0].begin, 0);
  EXPECT_EQ(part[0].end, 15);
  EXPECT_EQ(part[2].begin, 236);
  EXPECT_EQ(part[2].end, 280);
}

TEST(Partition, KnowsItsOwnParametersOnly) {
  const OddBlock odd;
  const OddBlock other;
  const BlockPartition block(odd, 1);
  EXPECT_THROW(block.placement(other.parameters()[0].get()), Error);
}

TEST(Partition, RefusesMoreRanksThanParameters) {
  const Model model = make_transformer(test::tiny_llama());
  const auto parameters = static_cast<int>(model.parameter_count());
  const Partition most(model, parameters);
  EXPECT_EQ(most.block(0).shard_numel(), kShardAlignment);
  test::expect_message<UsageError>([&] { Partition(model, parameters + 1); },
                                   {std::to_string(parameters + 1) + " ranks are more than",
                                    std::to_string(parameters), "start fewer"});
}

}  // namespace
}  // namespace strata
