#include "parallel/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/model/transformer.h"
#include "parallel/boundary_store.h"
#include "tests/support/messages.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

ModelConfig small_model(bool tied) {
  ModelConfig config = test::tiny_gpt2(tied);
  config.vocab_size = 5000;
  config.hidden = 256;
  config.layers = 6;
  config.head_size = 64;
  config.intermediate = 1024;
  config.max_positions = 256;
  return config;
}

/// So large that buffers are a small part of its state.
ModelConfig large_model() {
  ModelConfig config = small_model(false);
  config.hidden = 1024;
  config.head_size = 256;
  config.intermediate = 4096;
  return config;
}

/// What a memory plan is made for, and what that refers to.
struct Case {
  Case(const ModelConfig& config, int ranks, Dtype compute,
       UpdateTiming update = UpdateTiming::kLazy)
      : Case(make_transformer(config), ranks, compute, update) {}
  Case(Model given, int ranks, Dtype compute, UpdateTiming update)
      : model(std::move(given)), partition(model, ranks), plan(model, update) {
    placement.swap = {{"nowhere", 1}};
    placement.compute = compute;
    placement.update = update;
    measure({.micro_batches = 4, .sequences = 2, .sequence_length = 64});
  }
  void measure(const StepShape& wanted) {
    shape = wanted;
    costs = measure_blocks(model, shape, placement.compute);
  }
  MemoryPlanInput input() const {
    return {.model = model,
            .partition = partition,
            .plan = plan,
            .costs = costs,
            .shape = shape,
            .state = {.m = true, .v = true},
            .placement = placement};
  }
  MemoryPlan with(std::uint64_t dram_bytes) {
    placement.dram_bytes = dram_bytes;
    return make_memory_plan(input());
  }
  std::uint64_t traffic(const MemoryPlan& memory) const {
    const SwapTraffic predicted = predict_traffic(input(), memory);
    return predicted.read() + predicted.written();
  }
  /// The least budget with which nothing needs swap.
  std::uint64_t everything() {
    const std::vector<SwapDirectory> swap = std::exchange(placement.swap, {});
    const std::uint64_t bytes = smallest_dram(input());
    placement.swap = swap;
    return bytes;
  }
  /// Budgets from the least that works to what holds everything.
  std::vector<std::uint64_t> budgets() {
    const std::uint64_t least = smallest_dram(input());
    const std::uint64_t most = everything();
    std::vector<std::uint64_t> result;
    for (std::uint64_t i = 0; i <= 100; ++i) result.push_back(least + (most - least) * i / 100);
    return result;
  }

  Model model;
  Partition partition;
  Plan plan;
  std::vector<BlockCost> costs;
  StepShape shape;
  PlacementRequest placement;
};

/// Only what has `part` in its name is trained.
Model frozen_model(const ModelConfig& config, const char* part) {
  Model model = make_transformer(config);
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) {
      if (spec->name.find(part) == std::string::npos) model.freeze(spec->name);
    }
  }
  return model;
}

std::vector<Case> cases() {
  std::vector<Case> result;
  for (const bool tied : {false, true}) {
    for (const int ranks : {1, 3}) {
      for (const Dtype compute : {Dtype::kBf16, Dtype::kF32, Dtype::kF16}) {
        result.emplace_back(small_model(tied), ranks, compute);
      }
    }
  }
  result.emplace_back(small_model(true), 2, Dtype::kBf16, UpdateTiming::kFused);
  result.emplace_back(large_model(), 1, Dtype::kBf16);
  for (const char* trained : {"norm", "layers.3.", "tokens", "head."}) {
    for (const int ranks : {1, 3}) {
      for (const Dtype compute : {Dtype::kBf16, Dtype::kF32, Dtype::kF16}) {
        result.emplace_back(frozen_model(small_model(true), trained), ranks, compute,
                            UpdateTiming::kLazy);
      }
    }
  }
  return result;
}

TEST(MemoryPlan, NeverExceedsItsBudget) {
  for (Case& one : cases()) {
    for (const std::uint64_t budget : one.budgets()) {
      EXPECT_LE(one.with(budget).dram(), budget);
    }
  }
}

TEST(MemoryPlan, TheSmallestBudgetWorksAndABitLessIsRefusedWithIt) {
  for (Case& one : cases()) {
    const std::uint64_t least = smallest_dram(one.input());
    EXPECT_LE(one.with(least).dram(), least);
    const std::string sufficient = std::to_string((least + (1 << 20) - 1) >> 20);
    test::expect_message<UsageError>(
        [&] { one.with(least - 1); },
        {"--dram: ", "too small", "use --dram " + sufficient + "MiB or more"});
    one.placement.sections[static_cast<std::size_t>(Section::kHi)] = Place::kDram;
    const std::uint64_t with_hi = smallest_dram(one.input());
    EXPECT_GT(with_hi, least);
    EXPECT_LE(one.with(with_hi).dram(), with_hi);
    EXPECT_THROW(one.with(with_hi - 1), UsageError);
    one.placement.swap.clear();
    const std::uint64_t everything = smallest_dram(one.input());
    EXPECT_GT(everything, with_hi);
    EXPECT_EQ(one.with(everything).swap(), 0u);
    test::expect_message<UsageError>([&] { one.with(everything - 1); },
                                     {"--dram: ", "without --swap everything must fit"});
  }
}

TEST(MemoryPlan, TheLeastBuffersAreWhatTheirUsersNeed) {
  for (Case& one : cases()) {
    const MemoryPlan memory = one.with(smallest_dram(one.input()));
    const BoundaryStore::Shape boundaries = boundary_shape(one.input());
    EXPECT_TRUE(memory.boundaries_on_swap);
    EXPECT_GE(memory.boundary_slots, BoundaryStore::least_slots(boundaries));
    EXPECT_EQ(memory.swap_boundaries, BoundaryStore::swap_bytes(boundaries));
    EXPECT_GE(memory.prefetch_depth, 1);
    for (const BlockCost& cost : one.costs) {
      EXPECT_GE(memory.workspace, std::max(cost.forward_workspace, cost.backward_workspace));
    }
  }
}

TEST(MemoryPlan, MoreMemoryNeverMeansMoreTraffic) {
  for (Case& one : cases()) {
    std::uint64_t before = UINT64_MAX;
    for (const std::uint64_t budget : one.budgets()) {
      const std::uint64_t traffic = one.traffic(one.with(budget));
      EXPECT_LE(traffic, before) << "with " << budget << " bytes";
      before = traffic;
    }
    EXPECT_EQ(before, 0u) << "with room for everything";
  }
}

bool all_resident(const Case& one, const MemoryPlan& memory, Section section) {
  for (int part = 0; part < one.partition.part_count(); ++part) {
    const SectionKey key{part, section};
    if (memory.layout.bytes(key) > 0 && !memory.residency.resident(key)) return false;
  }
  return true;
}
bool any_resident(const Case& one, const MemoryPlan& memory, Section section) {
  for (int b = 0; b < one.model.block_count(); ++b) {
    if (memory.residency.resident({b, section})) return true;
  }
  return false;
}

TEST(MemoryPlan, WeightsComeFirstThenGradientsThenMoments) {
  Case one(large_model(), 2, Dtype::kBf16);
  int gradients = 0;
  int moments = 0;
  for (const std::uint64_t budget : one.budgets()) {
    const MemoryPlan memory = one.with(budget);
    // A budget whose gaps hold a small block's gradient but no more weights does not count.
    if (memory.residency.resident({1, Section::kGradient})) {
      // Blocks that are gathered twice; the others' hi saves no more than a gradient does.
      for (int b = 1; b + 1 < one.model.block_count(); ++b) {
        EXPECT_TRUE(memory.residency.resident({b, Section::kHi})) << b << " at " << budget;
      }
      gradients += all_resident(one, memory, Section::kGradient) ? 0 : 1;
    }
    if (any_resident(one, memory, Section::kM) && !all_resident(one, memory, Section::kM)) {
      EXPECT_TRUE(all_resident(one, memory, Section::kGradient)) << budget;
      ++moments;
    }
  }
  EXPECT_GT(gradients, 3) << "the budgets did not meet the case";
  EXPECT_GT(moments, 3) << "the budgets did not meet the case";
}

TEST(MemoryPlan, ComputesFromResidentWeightsWhereNobodyElseHasAPart) {
  for (Case& one : cases()) {
    const bool possible = one.partition.ranks() == 1 && one.placement.compute == Dtype::kBf16;
    for (const std::uint64_t budget : one.budgets()) {
      const MemoryPlan memory = one.with(budget);
      const bool in_place = possible && all_resident(one, memory, Section::kHi) &&
                            all_resident(one, memory, Section::kWeights);
      EXPECT_EQ(memory.weights_in_place, in_place);
      EXPECT_EQ(memory.gathered == 0, in_place);
    }
    MemoryPlanInput apart = one.input();
    apart.host_accessible = false;
    EXPECT_FALSE(make_memory_plan(apart).weights_in_place);
  }
}

TEST(MemoryPlan, FrozenParametersHaveWeightsAndNothingElse) {
  const ModelConfig config = small_model(false);
  for (const int ranks : {1, 2}) {
    for (const Dtype compute : {Dtype::kBf16, Dtype::kF32, Dtype::kF16}) {
      Case whole(config, ranks, compute);
      Case norms(frozen_model(config, "norm"), ranks, compute, UpdateTiming::kLazy);
      const MemoryPlan all = whole.with(whole.everything());
      const MemoryPlan some = norms.with(norms.everything());
      const auto shard = [&](const Case& one, int part) {
        return static_cast<std::size_t>(one.partition.part(part).shard_numel());
      };
      std::size_t want = 0;
      for (int part = 0; part < norms.partition.part_count(); ++part) {
        const bool frozen = norms.partition.frozen(part);
        want += shard(norms, part) * (frozen ? size_bytes(compute) : 12 + size_bytes(compute));
      }
      EXPECT_EQ(some.resident, want);
      EXPECT_LT(some.resident, all.resident / 3);
      EXPECT_LT(some.gradient_buffers, all.gradient_buffers / 10);
    }
  }
}

TEST(MemoryPlan, BlocksBelowWhatIsTrainedKeepNoActivations) {
  const ModelConfig config = small_model(false);  // embedding, 6 layers, head
  const int all = boundary_shape(Case(config, 1, Dtype::kBf16).input()).boundaries;
  EXPECT_EQ(all, 7);
  Case top(frozen_model(config, "layers.4."), 1, Dtype::kBf16, UpdateTiming::kLazy);
  const BoundaryStore::Shape shape = boundary_shape(top.input());
  EXPECT_EQ(shape.passing, 4) << "layer 4 is block 5, whose input is boundary 4";
  const std::size_t kept = 3 + 1;  // and one that passes through
  EXPECT_EQ(top.with(top.everything()).boundaries, kept * 4 * shape.tensor_bytes());
  EXPECT_EQ(top.with(smallest_dram(top.input())).swap_boundaries, 2 * 4 * shape.tensor_bytes());
}

TEST(MemoryPlan, ResidentSectionsAreSpreadOverTheBlocks) {
  Case one(large_model(), 1, Dtype::kBf16);
  for (const std::uint64_t budget : one.budgets()) {
    const MemoryPlan memory = one.with(budget);
    int longest_run = 0;
    int run = 0;
    int resident = 0;
    for (int layer = 1; layer <= 6; ++layer) {
      run = memory.residency.resident({layer, Section::kHi}) ? run + 1 : 0;
      resident += run > 0;
      longest_run = std::max(longest_run, run);
    }
    if (resident == 3) {
      EXPECT_LE(longest_run, 2) << "at " << budget;
    }
  }
}

TEST(MemoryPlan, DecisionsByHandHold) {
  Case one(small_model(true), 2, Dtype::kBf16);
  const auto place = [&](Section section) -> Place& {
    return one.placement.sections[static_cast<std::size_t>(section)];
  };
  place(Section::kGradient) = Place::kSwap;
  place(Section::kV) = Place::kDram;
  one.placement.activations = Place::kSwap;
  for (const std::uint64_t budget : one.budgets()) {
    const MemoryPlan memory = one.with(budget);
    EXPECT_FALSE(any_resident(one, memory, Section::kGradient));
    EXPECT_TRUE(all_resident(one, memory, Section::kV));
    EXPECT_TRUE(memory.boundaries_on_swap);
    EXPECT_GT(memory.gradient_staging, 0u);
  }
  one.placement.residency = false;
  place(Section::kGradient) = Place::kAuto;
  const MemoryPlan memory = one.with(one.budgets().back());
  EXPECT_TRUE(all_resident(one, memory, Section::kGradient));
  EXPECT_FALSE(any_resident(one, memory, Section::kHi));
  one.placement.activations = Place::kDram;
  EXPECT_FALSE(one.with(one.budgets().back()).boundaries_on_swap);
}

TEST(MemoryPlan, RefusesASwapTierThatIsTooSmall) {
  Case one(small_model(true), 1, Dtype::kBf16);
  const std::uint64_t least = smallest_dram(one.input());
  const std::uint64_t needed = one.with(least).swap();
  one.placement.swap_bytes = needed;
  EXPECT_EQ(one.with(least).swap(), needed);
  one.placement.swap_bytes = needed - 1;
  test::expect_message<UsageError>([&] { one.with(least); }, {"--swap-capacity", "too small"});
}

TEST(MemoryPlan, ResidentBytesAreThoseOfTheSectionsThatStay) {
  for (Case& one : cases()) {
    for (const std::uint64_t budget : one.budgets()) {
      const MemoryPlan memory = one.with(budget);
      std::size_t resident = 0;
      for (int b = 0; b < memory.residency.blocks(); ++b) {
        for (int s = 0; s < kSectionCount; ++s) {
          const SectionKey key{b, static_cast<Section>(s)};
          if (memory.residency.resident(key)) resident += memory.layout.bytes(key);
        }
      }
      EXPECT_EQ(memory.resident, resident);
    }
  }
}

}  // namespace
}  // namespace strata
