#include "parallel/plan.h"

#include <gtest/gtest.h>

#include <set>

#include "core/model/transformer.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

constexpr Phase kForward = Phase::kForward;
constexpr Phase kBackward = Phase::kBackward;

TEST(Plan, GoesUpOnceAndDownOnce) {
  const Model model = make_transformer(test::tiny_llama());  // embedding, 3 layers, head
  const Plan plan(model, UpdateTiming::kLazy);
  const std::vector<std::pair<int, Phase>> want{{0, kForward},  {1, kForward},  {2, kForward},
                                                {3, kForward},  {4, kBackward}, {3, kBackward},
                                                {2, kBackward}, {1, kBackward}, {0, kBackward}};
  ASSERT_EQ(plan.size(), static_cast<int>(want.size()));
  for (int i = 0; i < plan.size(); ++i) {
    EXPECT_EQ(plan.visit(i).block, want[static_cast<std::size_t>(i)].first) << i;
    EXPECT_EQ(plan.visit(i).phase, want[static_cast<std::size_t>(i)].second) << i;
  }
  EXPECT_EQ(plan.turn(), 4);
}

TEST(Plan, EveryBlockIsUpdatedOnceWhereItIsFirstGathered) {
  for (const bool tied : {false, true}) {
    const Model model = make_transformer(test::tiny_gpt2(tied));
    const Plan plan(model, UpdateTiming::kLazy);
    std::set<int> updated;
    for (const PlannedVisit& visit : plan.visits()) {
      EXPECT_FALSE(visit.updates_after);
      if (visit.updates_before) {
        EXPECT_TRUE(visit.gathers);
        EXPECT_TRUE(updated.insert(visit.block).second) << visit.block << " is updated twice";
      }
      EXPECT_TRUE(!visit.gathers || updated.contains(visit.block)) << "used before its update";
      for (const int other : visit.borrowed) EXPECT_TRUE(updated.contains(other));
    }
    EXPECT_EQ(updated.size(), static_cast<std::size_t>(model.block_count()));
  }
}

TEST(Plan, FusedUpdatesFollowTheVisitThatCompletesTheGradient) {
  const Model model = make_transformer(test::tiny_gpt2(true));
  const Plan plan(model, UpdateTiming::kFused);
  std::set<int> updated;
  for (const PlannedVisit& visit : plan.visits()) {
    EXPECT_FALSE(visit.updates_before);
    EXPECT_EQ(visit.updates_after, visit.completes_gradient);
    if (!visit.updates_after) continue;
    EXPECT_TRUE(updated.insert(visit.block).second) << visit.block << " is updated twice";
  }
  EXPECT_EQ(updated.size(), static_cast<std::size_t>(model.block_count()));
}

TEST(Plan, AGradientIsCompleteOnlyAfterItsLastBorrower) {
  const Model model = make_transformer(test::tiny_gpt2(true));
  const Plan plan(model, UpdateTiming::kLazy);
  int completes_table = -1;
  int last_borrower = -1;
  for (int i = 0; i < plan.size(); ++i) {
    const PlannedVisit& visit = plan.visit(i);
    if (visit.completes_gradient && visit.block == 0) completes_table = i;
    if (!visit.borrowed.empty() && visit.phase == kBackward) last_borrower = i;
  }
  EXPECT_EQ(last_borrower, plan.turn());
  EXPECT_GT(completes_table, last_borrower);
}

TEST(Plan, CountsWhatHasToBeReadForEachBlock) {
  const Model untied = make_transformer(test::tiny_gpt2(false));  // embedding, 2 layers, head
  const Plan apart(untied, UpdateTiming::kLazy);
  EXPECT_EQ(apart.gathers(0), 1) << "the embedding's backward needs no weights";
  EXPECT_EQ(apart.gathers(1), 2);
  EXPECT_EQ(apart.gathers(2), 2);
  EXPECT_EQ(apart.gathers(3), 1) << "the head is visited once";
  const Model tied = make_transformer(test::tiny_gpt2(true));
  const Plan shared(tied, UpdateTiming::kLazy);
  EXPECT_EQ(shared.gathers(0), 2) << "as embedding and for the head";
  EXPECT_EQ(shared.gathers(3), 1);
}

TEST(Plan, TheHeadOfATiedModelBorrowsTheTable) {
  const Model model = make_transformer(test::tiny_gpt2(true));
  const Plan plan(model, UpdateTiming::kLazy);
  for (int i = 0; i < plan.size(); ++i) {
    const bool head = i == plan.turn();
    EXPECT_EQ(plan.visit(i).borrowed, head ? std::vector<int>{0} : std::vector<int>{}) << i;
  }
}

void freeze_block(Model& model, int block) {
  for (const auto& spec : model.block(block).parameters()) model.freeze(spec->name);
}

TEST(Plan, BackwardEndsAtTheLowestBlockThatIsTrained) {
  Model model = make_transformer(test::tiny_llama());  // embedding, 3 layers, head
  for (const int frozen : {0, 1, 3}) freeze_block(model, frozen);
  for (const UpdateTiming timing : {UpdateTiming::kLazy, UpdateTiming::kFused}) {
    const Plan plan(model, timing);
    ASSERT_EQ(plan.size(), 7);
    EXPECT_EQ(plan.lowest(), 2);
    EXPECT_EQ(plan.passing_boundaries(), 1) << "block 2 needs its input, the output of block 1";
    EXPECT_EQ(plan.turn(), 4);
    for (const PlannedVisit& visit : plan.visits()) {
      const bool trained = visit.block == 2 || visit.block == 4;
      const bool backward = visit.phase == kBackward;
      const bool lazy = timing == UpdateTiming::kLazy;
      EXPECT_EQ(visit.completes_gradient, trained && backward);
      EXPECT_EQ(visit.updates_after, !lazy && trained && backward);
      EXPECT_EQ(visit.updates_before, lazy && trained && (!backward || visit.block == 4));
      EXPECT_EQ(visit.parts, std::vector<int>{trained ? visit.block : 5 + visit.block});
    }
    EXPECT_EQ(plan.gathers(5 + 0), 1) << "a block below is visited once";
    EXPECT_EQ(plan.gathers(5 + 3), 2) << "gradients pass through a frozen block above";
    EXPECT_EQ(plan.gathers(3), 0) << "it has no trainable part";
  }
}

TEST(Plan, GathersBothPartsOfABlockAndOnlyTheOneThatIsBorrowed) {
  Model model = make_transformer(test::tiny_gpt2(true));  // embedding, 2 layers, head
  model.freeze("embedding.tokens.weight");
  const Plan plan(model, UpdateTiming::kLazy);
  EXPECT_EQ(plan.visit(0).parts, (std::vector<int>{0, 4}));
  EXPECT_EQ(plan.visit(plan.turn()).parts, (std::vector<int>{3, 4}));
  EXPECT_EQ(plan.lowest(), 0) << "the positions are trained";
}

TEST(Plan, RefusesAModelThatIsFrozenAltogether) {
  Model model = make_transformer(test::tiny_llama());
  for (int b = 0; b < model.block_count(); ++b) freeze_block(model, b);
  EXPECT_EQ(model.lowest_trainable(), model.block_count());
  EXPECT_THROW(Plan(model, UpdateTiming::kLazy), UsageError);
}

std::uint64_t hash_of(const ModelConfig& config, UpdateTiming timing = UpdateTiming::kLazy) {
  const Model model = make_transformer(config);
  return Plan(model, timing).hash();
}

TEST(Plan, EqualModelsHaveEqualHashesAndAllOthersDiffer) {
  std::vector<ModelConfig> different{test::tiny_llama(), test::tiny_gpt2(true),
                                     test::tiny_gpt2(false)};
  const auto vary = [&](auto change) {
    different.push_back(test::tiny_llama());
    change(different.back());
  };
  vary([](ModelConfig& config) { ++config.layers; });
  vary([](ModelConfig& config) { ++config.vocab_size; });
  vary([](ModelConfig& config) { config.intermediate += 32; });
  vary([](ModelConfig& config) { config.kv_heads = 4; });
  vary([](ModelConfig& config) { config.tied = true; });
  std::set<std::uint64_t> hashes;
  for (const ModelConfig& config : different) {
    EXPECT_EQ(hash_of(config), hash_of(config));
    EXPECT_TRUE(hashes.insert(hash_of(config)).second) << config.family;
  }
  EXPECT_TRUE(hashes.insert(hash_of(test::tiny_llama(), UpdateTiming::kFused)).second);
}

/// One block with two vectors, and a loss over nothing.
class TwoVectors final : public Block {
 public:
  struct Vector {
    std::string name;
    Shape shape;
    ParameterOptions options = {};
  };
  explicit TwoVectors(const Vector& first, const Vector& second) : Block("pair") {
    declare(first.name, first.shape, first.options);
    declare(second.name, second.shape, second.options);
  }
  Value forward(Graph&, const Value& input, const DeviceBatch&) const override { return input; }
};
class NoLoss final : public Loss {
 public:
  NoLoss() : Loss("loss") {}
  Value forward(Graph&, const Value& input, const DeviceBatch&) const override { return input; }
};

std::uint64_t hash_of_pair(const TwoVectors::Vector& first, const TwoVectors::Vector& second) {
  std::vector<std::unique_ptr<Block>> blocks;
  blocks.push_back(std::make_unique<TwoVectors>(first, second));
  const Model model(std::move(blocks), std::make_unique<NoLoss>(), 8, 8);
  return Plan(model, UpdateTiming::kLazy).hash();
}

TEST(Plan, TheHashSeesNamesShapesOptionsAndOrder) {
  const std::uint64_t want = hash_of_pair({"a", {4, 6}}, {"b", {8}});
  EXPECT_EQ(hash_of_pair({"a", {4, 6}}, {"b", {8}}), want);
  EXPECT_NE(hash_of_pair({"c", {4, 6}}, {"b", {8}}), want) << "a name";
  EXPECT_NE(hash_of_pair({"a", {6, 4}}, {"b", {8}}), want) << "a shape of the same size";
  EXPECT_NE(hash_of_pair({"b", {8}}, {"a", {4, 6}}), want) << "the order";
  EXPECT_NE(hash_of_pair({"a", {4, 6}, {.frozen = true}}, {"b", {8}}), want);
  EXPECT_NE(hash_of_pair({"a", {4, 6}, {.decay = false}}, {"b", {8}}), want);
  EXPECT_NE(hash_of_pair({"a", {4, 6}, {.row_tiled = true}}, {"b", {8}}), want);
  EXPECT_NE(hash_of_pair({"a", {4}}, {"b", {6, 8}}), want) << "where one shape ends";
}

}  // namespace
}  // namespace strata
