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
        const BlockPartition& block = partition.part(b);
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
      const BlockPartition& block = partition.part(b);
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
  ASSERT_EQ(block.placements().size(), 3u);
  EXPECT_EQ(block.placements()[0].parameter->name, "odd.weight");
  EXPECT_EQ(block.placements()[1].offset, 64);
  EXPECT_EQ(block.placements()[2].parameter->name, "odd.table");
  EXPECT_EQ(block.placements()[2].offset, 128);
  EXPECT_EQ(block.dense_numel(), 128);
  EXPECT_TRUE(block.row_tiled());
  EXPECT_EQ(block.parameter_numel(), 300 + 35 + 1);
  EXPECT_EQ(block.shard_numel(), 2048);
}

TEST(Partition, FrozenParametersAreAPartOfTheirOwn) {
  const OddBlock odd;
  const BlockPartition frozen(odd, 1, true);
  ASSERT_EQ(frozen.placements().size(), 1u);
  EXPECT_EQ(frozen.placements()[0].parameter->name, "odd.frozen");
  EXPECT_EQ(frozen.parameter_numel(), 65);
  EXPECT_FALSE(frozen.row_tiled());
  EXPECT_THROW(frozen.placement(odd.parameters()[0].get()), Error);

  Model model = make_transformer(test::tiny_gpt2(true));  // embedding, 2 layers, head
  model.freeze("embedding.tokens.weight");
  for (const auto& spec : model.block(2).parameters()) model.freeze(spec->name);
  const Partition partition(model, 2);
  ASSERT_EQ(partition.part_count(), 8);
  const auto numel = [&](int part) { return partition.part(part).parameter_numel(); };
  EXPECT_EQ(numel(0), 64 * 64) << "positions";
  EXPECT_EQ(numel(4), 97 * 64) << "the table";
  EXPECT_EQ(numel(5), 0) << "nothing of layer 0 is frozen";
  EXPECT_EQ(numel(2), 0) << "nothing of layer 1 is trained";
  EXPECT_EQ(numel(6), numel(1)) << "layers are equal";
  EXPECT_EQ(partition.part(2).shard_numel(), 0) << "an empty part takes no padding";
  for (int part = 0; part < 8; ++part) {
    EXPECT_EQ(partition.frozen(part), part >= 4);
    EXPECT_EQ(partition.block_of(part), part % 4);
    for (const Placement& placement : partition.part(part).placements()) {
      EXPECT_EQ(part_of(model, placement.parameter), part) << placement.parameter->name;
    }
  }
}

TEST(Partition, SegmentsLeaveOutFrozenParametersAndSayWhatDecays) {
  const OddBlock odd;
  const BlockPartition block(odd, 2);
  const std::vector<UpdateSegment> first = block.segments(0, 0, 2048);
  ASSERT_EQ(first.size(), 3u);
  EXPECT_EQ(first[0].end, 35);
  EXPECT_TRUE(first[0].decay);
  EXPECT_EQ(first[1].begin, 64);
  EXPECT_EQ(first[1].end, 65);
  EXPECT_FALSE(first[1].decay);
  EXPECT_EQ(first[2].begin, 128);
  EXPECT_EQ(first[2].end, 428);
  EXPECT_TRUE(block.segments(1, 0, 2048).empty()) << "the second shard is nothing but padding";
  const std::vector<UpdateSegment> part = block.segments(0, 20, 300);
  ASSERT_EQ(part.size(), 3u);
  EXPECT_EQ(part[0].begin, 0);
  EXPECT_EQ(part[0].end, 15);
  EXPECT_EQ(part[2].begin, 108);
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
  EXPECT_EQ(most.part(0).shard_numel(), kShardAlignment);
  test::expect_message<UsageError>([&] { Partition(model, parameters + 1); },
                                   {std::to_string(parameters + 1) + " ranks are more than",
                                    std::to_string(parameters), "start fewer"});
}

}  // namespace
}  // namespace strata
