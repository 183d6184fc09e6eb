#include "launch/plan_report.h"

#include <gtest/gtest.h>

#include <chrono>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace strata {
namespace {

PlanSubject subject_of(const std::string& name, std::int64_t ranks = 1) {
  PlanSubject subject;
  subject.name = name;
  subject.config = preset(name);
  subject.shape = {1, 1, std::min<std::int64_t>(1024, subject.config.max_positions)};
  subject.ranks = subject.ranks_per_node = static_cast<int>(ranks);
  subject.placement.swap = {{.path = "DIR", .weight = 1}};
  subject.placement.residency = false;
  return subject;
}

RateInputs known_machine() {
  RateInputs rates;
  rates.machine = {.blocks_bf16 = 1e11, .updates = 1e9, .memory = 2e10};
  rates.drive = DeviceProfile{.read = 3e9,
                              .write = 2e9,
                              .mixed_read = 1.4e9,
                              .mixed_write = 1.2e9,
                              .block_bytes = 1 << 20,
                              .queue_depth = 32};
  return rates;
}

TEST(PlanReport, TakesUnderASecondForEveryPreset) {
  for (const std::string& name : preset_names()) {
    for (const int micro_batches : {1, 64}) {
      PlanSubject subject = subject_of(name, 8);
      subject.shape.micro_batches = micro_batches;
      const auto begin = std::chrono::steady_clock::now();
      const PlanReport report = make_plan_report(subject, known_machine());
      const double seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      // Ten times what an idle machine needs; the promise itself is for RelWithDebInfo.
      RecordProperty(name + "_milliseconds", static_cast<int>(seconds * 1000));
      EXPECT_LT(seconds, 10.0) << name;
      EXPECT_GT(report.parameters, 0);
    }
  }
}

TEST(PlanReport, MeasuresOneLayerAsTheTrainerMeasuresAll) {
  for (const char* name : {"llama-26m", "gpt2-124m"}) {
    for (const int micro_batches : {1, 3, 40}) {
      PlanSubject subject = subject_of(name);
      subject.shape = {micro_batches, 1, 64};
      if (micro_batches == 3) {  // layers of two kinds
        subject.config.window = 24;
        subject.config.first_windowed_layer = 2;
      }
      const PlanMaterial material(subject);
      const auto shallow = material.input(subject.placement).costs;
      const auto all = measure_blocks(material.model(), subject.shape, subject.placement.compute);
      ASSERT_EQ(shallow.size(), all.size());
      for (std::size_t b = 0; b < all.size(); ++b) {
        EXPECT_NEAR(shallow[b].forward_operations, all[b].forward_operations,
                    1e-9 * all[b].forward_operations);
        EXPECT_NEAR(shallow[b].backward_operations, all[b].backward_operations,
                    1e-9 * all[b].backward_operations);
        EXPECT_EQ(shallow[b].forward_workspace, all[b].forward_workspace) << name << " " << b;
        EXPECT_EQ(shallow[b].backward_workspace, all[b].backward_workspace) << name << " " << b;
      }
    }
  }
}

std::vector<std::string> all_but(const ModelConfig& config, const char* part) {
  const Model model = make_transformer(config);
  std::vector<std::string> names;
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) {
      if (spec->name.find(part) == std::string::npos) names.push_back(spec->name);
    }
  }
  return names;
}

TEST(PlanReport, MeasuresEachKindOfPartlyFrozenLayer) {
  for (const char* trained : {"norm", "layers.4.mlp", "layers.4.", "tokens"}) {
    for (const int micro_batches : {1, 40}) {
      PlanSubject subject = subject_of("gpt2-124m");
      subject.shape = {micro_batches, 1, 64};
      subject.frozen = all_but(subject.config, trained);
      const PlanMaterial material(subject);
      const auto kinds = material.input(subject.placement).costs;
      const auto all = measure_blocks(material.model(), subject.shape, subject.placement.compute);
      ASSERT_EQ(kinds.size(), all.size());
      for (std::size_t b = 0; b < all.size(); ++b) {
        EXPECT_NEAR(kinds[b].backward_operations, all[b].backward_operations,
                    1e-9 * all[b].backward_operations)
            << trained << " " << b;
        EXPECT_EQ(kinds[b].backward_workspace, all[b].backward_workspace) << trained << " " << b;
      }
    }
  }
}

TEST(PlanReport, FrozenParametersCostTheirWeightsAndNoWrites) {
  PlanSubject subject = subject_of("gpt2-124m");
  const PlanReport whole = make_plan_report(subject, known_machine());
  subject.frozen = all_but(subject.config, "norm");
  const PlanReport norms = make_plan_report(subject, known_machine());
  EXPECT_EQ(norms.parameters, whole.parameters);
  EXPECT_EQ(norms.trainable, 25 * 2 * 768);
  EXPECT_EQ(whole.trainable, whole.parameters);
  EXPECT_EQ(norms.rows.front().name, "frozen parameters");
  EXPECT_NEAR(static_cast<double>(norms.rows.front().swap), 2 * norms.parameters,
              0.01 * norms.parameters);
  EXPECT_LT(norms.traffic.written(), whole.traffic.written() / 500);
  EXPECT_LT(norms.seconds.backward.compute, 0.8 * whole.seconds.backward.compute);
  EXPECT_LT(norms.smallest.dram, whole.smallest.dram);
  EXPECT_NE(format_plan(norms).find("of them trained"), std::string::npos);
  EXPECT_EQ(format_plan(whole).find("of them trained"), std::string::npos);
}

TEST(PlanReport, RowsAddUpToThePlansMemory) {
  PlanSubject subject = subject_of("gpt-406m", 2);
  subject.shape.micro_batches = 4;
  subject.placement.activations = Place::kSwap;
  const PlanMaterial material(subject);
  subject.placement.dram_bytes = smallest_dram(material.input(subject.placement)) + (600u << 20);
  const PlanReport report = make_plan_report(subject, known_machine());
  std::uint64_t dram = 0;
  std::uint64_t swap = 0;
  for (const PlanRow& row : report.rows) {
    dram += row.dram;
    swap += row.swap;
  }
  EXPECT_EQ(dram, report.memory.dram());
  EXPECT_NEAR(static_cast<double>(swap), static_cast<double>(report.memory.swap()),
              0.01 * static_cast<double>(swap))
      << "extents are aligned";
}

TEST(PlanReport, SmallestBudgetsWorkAndLessIsRefused) {
  PlanSubject subject = subject_of("gpt-162m");
  const SmallestBudgets smallest = make_plan_report(subject, known_machine()).smallest;
  subject.placement.dram_bytes = smallest.dram;
  EXPECT_EQ(make_plan_report(subject, known_machine()).memory.swap(), smallest.swap);
  subject.placement.dram_bytes = smallest.dram - (64 << 10);
  EXPECT_THROW(make_plan_report(subject, known_machine()), UsageError);
  subject.placement.swap.clear();
  subject.placement.dram_bytes = smallest.dram_alone;
  EXPECT_EQ(make_plan_report(subject, known_machine()).memory.swap(), 0u);
  subject.placement.dram_bytes = smallest.dram_alone - (64 << 10);
  EXPECT_THROW(make_plan_report(subject, known_machine()), UsageError);
}

TEST(PlanReport, PrintsSizesThatWorkWhenTheyAreUsed) {
  EXPECT_EQ(size_flag(1), "1MiB");
  EXPECT_EQ(size_flag(313ull << 20), "313MiB");
  EXPECT_EQ(size_flag((313ull << 20) + 1), "314MiB");
}

TEST(PlanReport, SaysWhereEveryRateComesFrom) {
  const PlanSubject subject = subject_of("gpt-162m", 2);
  RateInputs rates = known_machine();
  rates.overrides.write = 5e9;
  const PlanReport report = make_plan_report(subject, rates);
  const auto origin = [&](const std::string& what) {
    for (const RateOrigin& each : report.rates.origins) {
      if (each.what == what) return each;
    }
    return RateOrigin{};
  };
  EXPECT_EQ(origin("drive reads").kind, RateOrigin::Kind::kMeasured);
  EXPECT_EQ(origin("drive reads").per_second, 3e9);
  EXPECT_EQ(origin("drive writes").kind, RateOrigin::Kind::kGiven);
  EXPECT_EQ(origin("drive reads + writes").kind, RateOrigin::Kind::kDerived);
  EXPECT_EQ(origin("operations of a rank").per_second, 5e10) << "two ranks share the cores";
  EXPECT_EQ(origin("all-gather of a rank").kind, RateOrigin::Kind::kDerived);
  EXPECT_NE(origin("all-gather of a rank").remedy.find("strata bench collectives"),
            std::string::npos);
  const PlanReport guessed = make_plan_report(subject, {});
  EXPECT_TRUE(guessed.rates.any_assumed());
  EXPECT_NE(format_plan(guessed).find("assumed: measure it with strata bench io"),
            std::string::npos);
}

TEST(PlanReport, NodesShareNothingButTheLink) {
  PlanSubject subject = subject_of("llama-8b", 16);
  subject.ranks_per_node = 4;
  RateInputs rates = known_machine();
  rates.overrides.link = 1e10;
  const PlanReport report = make_plan_report(subject, rates);
  EXPECT_EQ(report.nodes(), 4);
  EXPECT_FALSE(report.rates.step.collectives_use_cores);
  EXPECT_DOUBLE_EQ(report.written_per_step_of_node(),
                   4 * static_cast<double>(report.traffic.written()));
}

TEST(MemoryWall, ReproducesThePublishedRowOfOneTrillionParameters) {
  // ZeRO-Infinity (2021), figure 2a: 128 layers, hidden 25K, 256 heads, 16 devices with 2 sequences
  // of 1024 tokens each. Its TB and GB are powers of 1024.
  constexpr double kTebi = 1024.0 * 1024 * 1024 * 1024;
  constexpr double kGibi = 1024.0 * 1024 * 1024;
  ModelConfig config = preset("gpt-1t");
  config.heads = 256;
  const double parameters = 12.0 * 128 * 25600.0 * 25600.0;
  const MemoryWall wall = memory_wall(config, parameters, 32, 1024, 16);
  EXPECT_NEAR(wall.states / kTebi, 18.31, 0.005);
  EXPECT_NEAR(wall.activations / kTebi, 7.13, 0.01);
  EXPECT_NEAR(wall.checkpoints / kTebi, 0.20, 0.005);
  EXPECT_NEAR(wall.state_working / kGibi, 9.77, 0.005);
  EXPECT_NEAR(wall.activation_working / kGibi, 3.56, 0.005);
}

TEST(MemoryWall, IsThirtyTerabytesForTheTrillionParameterPreset) {
  const PlanReport report = make_plan_report(subject_of("gpt-1t", 16), known_machine());
  EXPECT_NEAR(report.wall.total() / 1e12, 30, 1.0);
  const double swap = 16.0 * static_cast<double>(report.memory.swap());
  EXPECT_NEAR(swap / report.parameters, 12, 0.1);
  EXPECT_NE(format_memory_wall(report).find("memory wall"), std::string::npos);
}

TEST(PlanJson, HoldsWhatTheTextSays) {
  const PlanReport report = make_plan_report(subject_of("gpt-162m"), known_machine());
  const auto json = nlohmann::json::parse(plan_json(report));
  EXPECT_EQ(json["job"]["ranks"], 1);
  EXPECT_EQ(json["bytes_of_rank"]["dram"], report.memory.dram());
  EXPECT_EQ(json["swap_traffic_of_rank"]["read"], report.traffic.read());
  EXPECT_DOUBLE_EQ(json["seconds"]["step"], report.seconds.total());
  EXPECT_TRUE(json["swap_traffic_of_rank"]["steps_until_worn"].is_null());
}

}  // namespace
}  // namespace strata
