#include "parallel/step_prediction.h"

#include <gtest/gtest.h>

#include "tests/support/tiny_training.h"

namespace strata {
namespace {

/// Round rates: a unit of anything takes a second.
StepRates unit_rates() {
  return {.operations = 1,
          .update = 1,
          .memory = 1,
          .gather = 1,
          .reduce = 1,
          .drive = {.read = 1,
                    .write = 1,
                    .mixed_read = 0.5,
                    .mixed_write = 0.5,
                    .block_bytes = 0,
                    .queue_depth = 0},
          .ranks_per_node = 1,
          .collectives_use_cores = true};
}

TEST(StepPrediction, AddsWhatSharesTheCoresAndTakesTheLargerOfThatAndTheDrive) {
  StepLoad load;
  load.forward = {.operations = 3, .updated = 4, .read = 5, .written = 5};
  load.backward = {.operations = 9, .gradient_bytes = 2, .gathered = 1, .reduced = 1, .read = 6};
  const StepSeconds step = predict(load, unit_rates());
  EXPECT_DOUBLE_EQ(step.forward.cores(), 7);
  EXPECT_DOUBLE_EQ(step.forward.io, 10) << "reads and writes share the drive";
  EXPECT_DOUBLE_EQ(step.forward.total(), 10);
  EXPECT_DOUBLE_EQ(step.backward.cores(), 13);
  EXPECT_DOUBLE_EQ(step.backward.io, 6);
  EXPECT_DOUBLE_EQ(step.total(), 23);
  EXPECT_DOUBLE_EQ(step.balanced(), 20) << "all compute, since it is more than all I/O";
}

TEST(StepPrediction, ALinkWorksBesideTheCores) {
  StepLoad load;
  load.backward = {.operations = 5, .gathered = 4, .reduced = 4};
  StepRates rates = unit_rates();
  EXPECT_DOUBLE_EQ(predict(load, rates).total(), 13);
  rates.collectives_use_cores = false;
  EXPECT_DOUBLE_EQ(predict(load, rates).total(), 8);
  EXPECT_EQ(predict(load, rates).bound(), Bound::kCollectives);
}

TEST(StepPrediction, RanksOfANodeShareItsDrive) {
  StepLoad load;
  load.forward.read = 3;
  StepRates rates = unit_rates();
  EXPECT_DOUBLE_EQ(predict(load, rates).total(), 3);
  rates.ranks_per_node = 4;
  EXPECT_DOUBLE_EQ(predict(load, rates).total(), 12);
}

TEST(StepPrediction, NamesWhatBinds) {
  const auto bound = [](const PhaseLoad& phase) {
    StepLoad load;
    load.forward = phase;
    return predict(load, unit_rates()).bound();
  };
  EXPECT_EQ(bound({.operations = 5, .read = 4}), Bound::kCompute);
  EXPECT_EQ(bound({.operations = 2, .updated = 3, .read = 4}), Bound::kUpdate);
  EXPECT_EQ(bound({.operations = 1, .gathered = 3, .read = 1}), Bound::kCollectives);
  EXPECT_EQ(bound({.operations = 5, .read = 4, .written = 3}), Bound::kRead);
  EXPECT_EQ(bound({.operations = 5, .read = 3, .written = 4}), Bound::kWrite);
  EXPECT_STREQ(name(Bound::kWrite), "write");
}

TEST(StepPrediction, FindsTheMicroBatchesFromWhichComputeHidesIo) {
  StepLoad load;
  load.micro_batches = 2;
  load.forward = {.operations = 2, .read = 10};   // 1 per micro-batch: hidden from 10
  load.backward = {.operations = 6, .read = 12};  // 3 per micro-batch: hidden from 4
  EXPECT_EQ(micro_batches_that_hide_io(load, unit_rates()), 10);
  EXPECT_EQ(micro_batches_that_balance(load, unit_rates()), 6) << "22 of I/O, 4 per micro-batch";
  load.backward.boundaries_read = 8;  // 4 per micro-batch, more than its compute
  EXPECT_EQ(micro_batches_that_hide_io(load, unit_rates()), std::nullopt);
  load.forward = {.operations = 2};
  load.backward = {.operations = 6};
  EXPECT_EQ(micro_batches_that_hide_io(load, unit_rates()), 1);
}

TEST(StepPrediction, MicroBatchesScaleOperationsAndBoundariesOnly) {
  StepLoad load;
  load.micro_batches = 4;
  load.forward = {.operations = 8,
                  .updated = 1,
                  .gradient_bytes = 2,
                  .gathered = 3,
                  .reduced = 4,
                  .read = 5,
                  .written = 6,
                  .boundaries_read = 12,
                  .boundaries_written = 16};
  const StepLoad one = with_micro_batches(load, 1);
  EXPECT_DOUBLE_EQ(one.forward.operations, 2);
  EXPECT_DOUBLE_EQ(one.forward.updated, 1);
  EXPECT_DOUBLE_EQ(one.forward.gradient_bytes, 2);
  EXPECT_DOUBLE_EQ(one.forward.gathered, 3);
  EXPECT_DOUBLE_EQ(one.swap_read(), 5 + 3);
  EXPECT_DOUBLE_EQ(one.swap_written(), 6 + 4);
}

TEST(StepPrediction, ARateThatIsNeededMustBeThere) {
  StepLoad load;
  load.forward.operations = 1;
  EXPECT_THROW(predict(load, {}), Error);
  EXPECT_DOUBLE_EQ(predict({}, {}).total(), 0) << "no load needs no rates";
}

/// A plan for `ranks` ranks, every byte streamed.
struct PlannedTiny {
  PlannedTiny(const ModelConfig& config, int ranks, PlacementRequest wanted, int micro_batches)
      : placement(std::move(wanted)),
        model(make_transformer(config)),
        partition(model, placement.stage == 0 ? 1 : ranks),
        plan(model, placement.update),
        shape{micro_batches, 1, 16},
        costs(measure_blocks(model, shape, placement.compute)),
        input{model, partition, plan, costs, shape, {true, true}, placement},
        memory(make_memory_plan(input)),
        load(load_of(input, memory, ranks)) {}
  PlacementRequest placement;
  Model model;
  Partition partition;
  Plan plan;
  StepShape shape;
  std::vector<BlockCost> costs;
  MemoryPlanInput input;
  MemoryPlan memory;
  StepLoad load;
};

PlacementRequest streamed() {
  PlacementRequest placement;
  placement.swap = {{.path = "DIR", .weight = 1}};
  placement.residency = false;
  return placement;
}

TEST(StepLoad, CountsWhatEveryVisitMovesBetweenRanks) {
  const PlannedTiny job(test::tiny_llama(), 2, streamed(), 1);
  double gathered = 0;
  double gradients = 0;
  double shards = 0;
  for (int b = 0; b < job.model.block_count(); ++b) {
    const auto numel = static_cast<double>(job.partition.part(b).numel());
    gathered += job.plan.gathers(b) * numel / 2 * 2;  // the other rank's half, 2 bytes each
    gradients += numel / 2 * 4;
    shards += static_cast<double>(job.partition.part(b).shard_numel());
  }
  EXPECT_DOUBLE_EQ(job.load.forward.gathered + job.load.backward.gathered, gathered);
  EXPECT_DOUBLE_EQ(job.load.forward.reduced + job.load.backward.reduced, gradients);
  EXPECT_DOUBLE_EQ(job.load.forward.updated + job.load.backward.updated, 26 * shards);
  EXPECT_EQ(job.load.forward.reduced, 0);
}

TEST(StepLoad, KeptWeightsAreGatheredOnceAStep) {
  PlacementRequest placement = streamed();
  placement.stage = 2;
  const PlannedTiny two(test::tiny_llama(), 2, placement, 1);
  double once = 0;
  for (int b = 0; b < two.model.block_count(); ++b) {
    once += static_cast<double>(two.partition.part(b).shard_numel()) * 2;
  }
  EXPECT_DOUBLE_EQ(two.load.forward.gathered + two.load.backward.gathered, once);
  placement.update = UpdateTiming::kFused;
  const PlannedTiny fused(test::tiny_llama(), 2, placement, 1);
  EXPECT_DOUBLE_EQ(fused.load.forward.gathered + fused.load.backward.gathered, once);
}

TEST(StepLoad, ReplicatedStatesSumTwiceAndGatherNothing) {
  PlacementRequest placement = streamed();
  placement.stage = 0;
  const PlannedTiny zero(test::tiny_llama(), 4, placement, 1);
  double all = 0;
  for (int b = 0; b < zero.model.block_count(); ++b) {
    all += static_cast<double>(zero.partition.part(b).numel());
  }
  EXPECT_EQ(zero.load.forward.gathered + zero.load.backward.gathered, 0);
  EXPECT_DOUBLE_EQ(zero.load.backward.reduced, all * 4 * 2 * 3 / 4);
}

TEST(MemoryPlan, TheSmallestBudgetWorksAndLittleLessIsRefused) {
  for (const bool swaps : {true, false}) {
    PlacementRequest placement = streamed();
    if (!swaps) placement.swap.clear();
    PlannedTiny job(test::tiny_gpt2(true), 1, placement, 4);
    const std::uint64_t least = smallest_dram(job.input);
    job.placement.dram_bytes = least;
    const PlannedTiny works(test::tiny_gpt2(true), 1, job.placement, 4);
    EXPECT_LE(works.memory.dram(), least);
    job.placement.dram_bytes = least - (64 << 10);
    EXPECT_THROW(PlannedTiny(test::tiny_gpt2(true), 1, job.placement, 4), UsageError);
  }
}

}  // namespace
}  // namespace strata
