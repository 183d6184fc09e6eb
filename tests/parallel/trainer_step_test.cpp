// What happens around and between steps: skipping, evaluating, reading and writing.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "tests/support/messages.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using test::tiny_batch;
using test::tiny_options;
using Parameters = std::map<std::string, std::vector<float>>;

/// One rank of a job, inside run_on_threads().
class Rank {
 public:
  Rank(Communicator& world, const Model& model, const TrainerOptions& options)
      : world_(world), model_(model), options_(options) {}

  Trainer& trainer() { return trainer_; }
  Batch batch(int step) const {
    return tiny_batch(options_.shape, model_.vocabulary_size(), step, world_.rank(), world_.size());
  }
  StepReport step(int number) { return trainer_.step(batch(number)); }
  Parameters parameters() {
    Parameters result;
    for (int b = 0; b < model_.block_count(); ++b) {
      for (const auto& spec : model_.block(b).parameters()) {
        result[spec->name] = trainer_.read(spec->name);
      }
    }
    return result;
  }

 private:
  Communicator& world_;
  const Model& model_;
  const TrainerOptions& options_;
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  Log log_{1};
  Trainer trainer_{{*device_, world_, log_}, model_, options_, random_parameters(5)};
};

struct Setting {
  std::string name;
  int ranks = 1;
  bool streams = false;
  int stage = 3;
  Dtype compute = Dtype::kF32;
};

class TrainerStep : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    options_ = tiny_options(GetParam().compute);
    options_.placement.stage = GetParam().stage;
    if (GetParam().streams) test::stream_everything(options_, directory_.path());
  }
  void on_ranks(const std::function<void(Rank&)>& body) {
    test::run_on_threads(GetParam().ranks, [&](Communicator& world) {
      Rank rank(world, model_, options_);
      body(rank);
    });
  }
  /// What steps 0 to `steps` - 1 leave when nothing else happens.
  Parameters undisturbed(int steps) {
    Parameters result;
    test::run_on_threads(GetParam().ranks, [&](Communicator& world) {
      Rank rank(world, model_, options_);
      for (int i = 0; i < steps; ++i) rank.step(i);
      Parameters own = rank.parameters();
      if (world.rank() == 0) result = std::move(own);
    });
    return result;
  }

  test::TemporaryDirectory directory_;
  Model model_ = make_transformer(test::tiny_gpt2(true));
  TrainerOptions options_;
};

constexpr auto kInjured = "layers.1.mlp.up.weight";

TEST_P(TrainerStep, AGradientThatIsNotFiniteSkipsTheStepOnAllRanksAndChangesNothing) {
  const Parameters want = undisturbed(4);
  on_ranks([&](Rank& rank) {
    Trainer& trainer = rank.trainer();
    rank.step(0);
    rank.step(1);
    const Parameters before = rank.parameters();
    std::vector<float> values = before.at(kInjured);
    values[values.size() / 2] = std::numeric_limits<float>::infinity();
    trainer.write(kInjured, values);
    const StepReport skipped = rank.step(17);
    EXPECT_TRUE(skipped.skipped);
    EXPECT_EQ(skipped.skipped_steps, 1);
    EXPECT_EQ(skipped.step, 3);
    EXPECT_EQ(trainer.steps_done(), 3);
    EXPECT_EQ(trainer.updates_done(), 2);
    Parameters after = rank.parameters();
    EXPECT_EQ(after.at(kInjured), values);
    trainer.write(kInjured, before.at(kInjured));
    EXPECT_EQ(rank.parameters(), before);
    EXPECT_FALSE(rank.step(2).skipped);
    EXPECT_FALSE(rank.step(3).skipped);
    EXPECT_EQ(trainer.steps_done(), 5);
    EXPECT_EQ(trainer.updates_done(), 4);
    EXPECT_EQ(rank.parameters(), want);
  });
}

TEST_P(TrainerStep, AStepWithoutCountedLabelsIsSkipped) {
  const Parameters want = undisturbed(2);
  on_ranks([&](Rank& rank) {
    rank.step(0);
    Batch nothing = rank.batch(9);
    for (MicroBatch& micro_batch : nothing.micro_batches) {
      for (std::int32_t& label : micro_batch.labels) label = kIgnoredLabel;
    }
    const StepReport report = rank.trainer().step(nothing);
    EXPECT_TRUE(report.skipped);
    EXPECT_EQ(report.loss, 0.0);
    EXPECT_EQ(report.gradient_norm, 0.0);
    EXPECT_EQ(rank.trainer().evaluate(nothing).loss(), 0.0);
    EXPECT_EQ(rank.trainer().steps_done(), 2);
    EXPECT_EQ(rank.trainer().updates_done(), 1);
    rank.step(1);
    EXPECT_EQ(rank.parameters(), want);
  });
}

TEST_P(TrainerStep, EvaluationChangesNothingAndSeesTheParametersOfTheNextStep) {
  const Parameters want = undisturbed(3);
  on_ranks([&](Rank& rank) {
    for (int i = 0; i < 3; ++i) {
      Batch one = rank.batch(40 + i);
      one.micro_batches.resize(1);
      const EvaluationReport small = rank.trainer().evaluate(one);
      EXPECT_EQ(small.labels, static_cast<double>(one.counted_labels()) * GetParam().ranks);
      const EvaluationReport evaluated = rank.trainer().evaluate(rank.batch(i));
      EXPECT_EQ(rank.trainer().evaluate(rank.batch(i)).loss_sum, evaluated.loss_sum);
      EXPECT_EQ(rank.step(i).loss, evaluated.loss());
    }
    EXPECT_EQ(rank.parameters(), want);
  });
}

TEST_P(TrainerStep, ReadingAndFlushingBetweenStepsChangesNothing) {
  const Parameters want = undisturbed(3);
  on_ranks([&](Rank& rank) {
    for (int i = 0; i < 3; ++i) {
      rank.step(i);
      const Parameters once = rank.parameters();
      rank.trainer().flush();
      EXPECT_EQ(rank.parameters(), once);
    }
    EXPECT_EQ(rank.parameters(), want);
  });
}

TEST_P(TrainerStep, WhatWasWrittenIsReadBackBitByBit) {
  on_ranks([&](Rank& rank) {
    rank.step(0);
    for (int b = 0; b < model_.block_count(); ++b) {
      for (const auto& spec : model_.block(b).parameters()) {
        const Parameters before = rank.parameters();
        std::vector<float> values(static_cast<std::size_t>(spec->shape.numel()));
        for (std::size_t i = 0; i < values.size(); ++i) {
          // Any finite bits: subnormal, negative zero and halves that carry included.
          const auto bits = static_cast<std::uint32_t>(i * 2654435761u + 0x80007fffu);
          values[i] = std::bit_cast<float>(bits & 0xbfffffffu);
        }
        rank.trainer().write(spec->name, values);
        const std::vector<float> read = rank.trainer().read(spec->name);
        for (std::size_t i = 0; i < values.size(); ++i) {
          ASSERT_EQ(std::bit_cast<std::uint32_t>(read[i]), std::bit_cast<std::uint32_t>(values[i]))
              << spec->name << " " << i;
        }
        std::vector<float> part(values.size() / 2);
        const std::size_t begin = values.size() / 3;
        rank.trainer().read(spec.get(), static_cast<std::int64_t>(begin), part);
        EXPECT_TRUE(std::equal(part.begin(), part.end(),
                               values.begin() + static_cast<std::ptrdiff_t>(begin)));
        rank.trainer().write(spec->name, before.at(spec->name));
        EXPECT_EQ(rank.parameters(), before) << "writing " << spec->name << " touched another";
      }
    }
  });
}

TEST_P(TrainerStep, TellsEveryRankAboutEveryStep) {
  on_ranks([&](Rank& rank) {
    std::vector<StepReport> told;
    std::vector<float> seen;
    rank.trainer().on_step([&](const StepReport& report) {
      told.push_back(report);
      seen = rank.trainer().read("head.norm.weight");
    });
    for (int i = 0; i < 3; ++i) {
      const StepReport returned = rank.step(i);
      ASSERT_EQ(told.size(), static_cast<std::size_t>(i + 1));
      EXPECT_EQ(told.back().step, i + 1);
      EXPECT_EQ(told.back().loss, returned.loss);
      EXPECT_EQ(told.back().tokens, 2 * 2 * 17 * GetParam().ranks);
      EXPECT_EQ(seen, rank.trainer().read("head.norm.weight"));
    }
  });
}

TEST_P(TrainerStep, RefusesBatchesOfAnotherShape) {
  on_ranks([&](Rank& rank) {
    Batch few = rank.batch(0);
    few.micro_batches.pop_back();
    EXPECT_THROW(rank.trainer().step(few), Error);
  });
  on_ranks([&](Rank& rank) {
    Batch many = rank.batch(0);
    many.micro_batches.push_back(many.micro_batches.front());
    EXPECT_THROW(rank.trainer().step(many), Error);
  });
  on_ranks([&](Rank& rank) {
    Batch foreign = rank.batch(0);
    foreign.micro_batches[1].ids[3] = 97;
    EXPECT_THROW(rank.trainer().evaluate(foreign), UsageError);
  });
  on_ranks([&](Rank& rank) {
    Batch outside = rank.batch(0);
    outside.micro_batches[1].positions[3] = -1;
    EXPECT_THROW(rank.trainer().step(outside), UsageError);
  });
}

std::vector<Setting> settings() {
  return {{.name = "OneInDram"},
          {.name = "OneStreamedBf16", .streams = true, .compute = Dtype::kBf16},
          {.name = "OneStreamedFp16", .streams = true, .compute = Dtype::kF16},
          {.name = "ThreeStreamed", .ranks = 3, .streams = true},
          {.name = "ThreeInStageTwo", .ranks = 3, .streams = true, .stage = 2},
          {.name = "ThreeInStageTwoBf16",
           .ranks = 3,
           .streams = true,
           .stage = 2,
           .compute = Dtype::kBf16},
          {.name = "TwoInStageTwoFp16",
           .ranks = 2,
           .streams = true,
           .stage = 2,
           .compute = Dtype::kF16},
          {.name = "ThreeReplicated", .ranks = 3, .streams = true, .stage = 0}};
}
INSTANTIATE_TEST_SUITE_P(All, TrainerStep, testing::ValuesIn(settings()),
                         [](const auto& setting) { return setting.param.name; });

TEST(TrainerRanks, RefuseToTrainTogetherWithDifferentModelsOrOptions) {
  const auto train_apart_on_rank_one = [](const auto& change) {
    test::run_on_threads(2, [&](Communicator& world) {
      ModelConfig config = test::tiny_llama();
      TrainerOptions options = tiny_options();
      if (world.rank() == 1) change(config, options);
      const Model model = make_transformer(config);
      Rank rank(world, model, options);
    });
  };
  const auto is_refused = [&](const auto& change) {
    test::expect_message<UsageError>([&] { train_apart_on_rank_one(change); },
                                     {"the ranks were started with different"});
  };
  is_refused([](ModelConfig& config, TrainerOptions&) { config.intermediate = 128; });
  is_refused(
      [](ModelConfig&, TrainerOptions& options) { options.placement.compute = Dtype::kBf16; });
  is_refused([](ModelConfig&, TrainerOptions& options) { options.placement.stage = 2; });
  is_refused([](ModelConfig&, TrainerOptions& options) { options.placement.stage = 0; });
  is_refused([](ModelConfig&, TrainerOptions& options) {
    options.clip = Clip::kNone;
    options.placement.update = UpdateTiming::kFused;
  });
  train_apart_on_rank_one([](ModelConfig&, TrainerOptions& options) {
    options.shape.micro_batches = 3;  // is each rank's own business
  });
}

TEST(TrainerUpdates, DecayNormsOnlyWhenToldTo) {
  TrainerOptions options = tiny_options();
  options.optimizer = OptimizerKind::kSgd;
  const auto train_with = [&](double decay, bool everywhere) {
    options.sgd.weight_decay = decay;
    options.decay_everywhere = everywhere;
    return test::train(test::tiny_llama(), options, 1).parameters;
  };
  const auto plain = train_with(0.0, false);
  const auto weights = train_with(0.5, false);
  const auto everywhere = train_with(0.5, true);
  int norms = 0;
  for (const auto& [name, values] : plain) {
    const bool norm = name.ends_with("norm.weight");
    norms += norm ? 1 : 0;
    EXPECT_EQ(weights.at(name) == values, norm) << name;
    EXPECT_NE(everywhere.at(name), values) << name;
  }
  EXPECT_GE(norms, 3);
}

TEST(TrainerStages, AllGiveTheSameBitsOnThreeRanksWithAnyOptimizer) {
  const test::TemporaryDirectory directory;
  for (const OptimizerKind optimizer :
       {OptimizerKind::kAdamW, OptimizerKind::kLion, OptimizerKind::kSgd}) {
    TrainerOptions options = tiny_options();
    options.optimizer = optimizer;
    options.sgd = {.momentum = 0.9f, .weight_decay = 0.01f};
    if (optimizer == OptimizerKind::kSgd) options.schedule.learning_rate = 0.3;
    const test::TrainingResult want = test::train(test::tiny_gpt2(true), options, 6, 3);
    EXPECT_LT(want.losses.back(), want.losses.front() - 0.1);
    test::stream_everything(options, directory.path());
    for (const int stage : {0, 1, 2, 3}) {
      options.placement.stage = stage;
      const test::TrainingResult got = test::train(test::tiny_gpt2(true), options, 6, 3);
      EXPECT_EQ(got.losses, want.losses) << "stage " << stage;
      EXPECT_EQ(got.parameters, want.parameters) << "stage " << stage;
      const bool has_v = optimizer == OptimizerKind::kAdamW;
      EXPECT_EQ(got.plan.layout.bytes({0, Section::kV}) != 0, has_v);
    }
  }
}

}  // namespace
}  // namespace strata
