#include "parallel/trainer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/same_bits.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using test::expect_same_bits;
using test::tiny_options;
using test::train;
using test::TrainingResult;

constexpr int kSteps = 5;

TEST(Trainer, LearnsAMappingOfTokens) {
  TrainerOptions options = tiny_options();
  options.schedule.learning_rate = 1e-2;
  const TrainingResult result = train(test::tiny_llama(), options, 60);
  EXPECT_NEAR(result.losses.front(), std::log(97.0), 0.1);
  EXPECT_LT(result.losses.back(), 0.5);
}

class TrainerPlacement : public testing::TestWithParam<Dtype> {
 protected:
  test::TemporaryDirectory directory_;
};

TEST_P(TrainerPlacement, WhereTheStatesRestDoesNotChangeOneBit) {
  for (const ModelConfig& config :
       {test::tiny_llama(), test::tiny_gpt2(true), test::tiny_gpt2(false)}) {
    SCOPED_TRACE(config.family + (config.tied ? " tied" : " untied"));
    const TrainingResult want = train(config, tiny_options(GetParam()), kSteps);
    TrainerOptions streamed = tiny_options(GetParam());
    test::stream_everything(streamed, directory_.path());
    expect_same_bits(train(config, streamed, kSteps), want);
    for (const int depth : {0, 2, 5}) {
      TrainerOptions options = streamed;
      options.placement.prefetch_depth = depth;
      expect_same_bits(train(config, options, kSteps), want);
    }
    TrainerOptions spilled = streamed;
    spilled.placement.sections[static_cast<std::size_t>(Section::kGradient)] = Place::kSwap;
    expect_same_bits(train(config, spilled, kSteps), want);
    TrainerOptions threads = streamed;
    threads.io.kind = IoEngineOptions::Kind::kThreads;
    expect_same_bits(train(config, threads, kSteps), want);
    TrainerOptions activations = streamed;
    activations.placement.activations = Place::kSwap;
    expect_same_bits(train(config, activations, kSteps), want);
  }
}

TEST_P(TrainerPlacement, EveryBudgetGivesTheSameBits) {
  const Model model = make_transformer(test::tiny_gpt2(true));
  TrainerOptions options = tiny_options(GetParam());
  const TrainingResult want = train(model, options, kSteps);
  options.placement.swap = {{.path = directory_.path(), .weight = 1}};
  test::expect_same_bits_in_every_budget(model, options, kSteps, want, 16, 4);
}

TEST_P(TrainerPlacement, UpdatesThatRunAheadOfTheirVisitsGiveTheSameBits) {
  for (const int ranks : {1, 3}) {
    for (const ModelConfig& config : {test::tiny_llama(), test::tiny_gpt2(true)}) {
      SCOPED_TRACE(config.family + " on " + std::to_string(ranks) + " ranks");
      const TrainingResult want = train(config, tiny_options(GetParam()), kSteps, ranks);
      TrainerOptions options = tiny_options(GetParam());
      test::stream_everything(options, directory_.path());
      const auto place = [&options](Section section) -> Place& {
        return options.placement.sections[static_cast<std::size_t>(section)];
      };
      place(Section::kHi) = place(Section::kLo) = Place::kDram;  // so that no visit has to read
      const TrainingResult got = train(config, options, kSteps, ranks);
      expect_same_bits(got, want);
      EXPECT_EQ(got.plan.weights_in_place, ranks == 1 && GetParam() == Dtype::kBf16);
      place(Section::kGradient) = Place::kSwap;
      expect_same_bits(train(config, options, kSteps, ranks), want);
      options.placement.stage = 2;
      expect_same_bits(train(config, options, kSteps, ranks), want);
    }
  }
}

TEST_P(TrainerPlacement, FusedUpdatesWithoutClippingAreTheLazyOnes) {
  if (GetParam() == Dtype::kF16) GTEST_SKIP() << "fp16 has no fused updates";
  TrainerOptions options = tiny_options(GetParam());
  options.clip = Clip::kNone;
  for (const ModelConfig& config : {test::tiny_llama(), test::tiny_gpt2(true)}) {
    const TrainingResult want = train(config, options, kSteps);
    TrainerOptions fused = options;
    fused.placement.update = UpdateTiming::kFused;
    expect_same_bits(train(config, fused, kSteps), want);
    test::stream_everything(fused, directory_.path());
    expect_same_bits(train(config, fused, kSteps), want);
    fused.placement.sections[static_cast<std::size_t>(Section::kGradient)] = Place::kSwap;
    expect_same_bits(train(config, fused, kSteps), want);
  }
}

TEST_P(TrainerPlacement, StagesTwoAndThreeGiveTheSameBits) {
  for (const int ranks : {1, 2}) {
    const TrainingResult want = train(test::tiny_llama(), tiny_options(GetParam()), kSteps, ranks);
    for (const int stage : {0, 1, 2}) {
      TrainerOptions options = tiny_options(GetParam());
      options.placement.stage = stage;
      const TrainingResult got = train(test::tiny_llama(), options, kSteps, ranks);
      EXPECT_EQ(got.losses, want.losses) << "stage " << stage << ", ranks " << ranks;
      EXPECT_EQ(got.parameters, want.parameters) << "stage " << stage << ", ranks " << ranks;
      test::stream_everything(options, directory_.path());
      EXPECT_EQ(train(test::tiny_llama(), options, kSteps, ranks).losses, want.losses);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, TrainerPlacement,
                         testing::Values(Dtype::kF32, Dtype::kBf16, Dtype::kF16),
                         [](const auto& compute) { return std::string(name(compute.param)); });

TEST(Trainer, MoreRanksGiveTheSameNumbersToRounding) {
  test::TemporaryDirectory directory;
  TrainerOptions one = tiny_options();
  one.shape.micro_batches = 12;
  for (const ModelConfig& config : {test::tiny_llama(), test::tiny_gpt2(true)}) {
    const TrainingResult want = train(config, one, kSteps);
    for (const int ranks : {2, 3, 4}) {
      TrainerOptions options = tiny_options();
      options.shape.micro_batches = 12 / ranks;
      const TrainingResult in_dram = train(config, options, kSteps, ranks);
      for (int step = 0; step < kSteps; ++step) {
        const double expected = want.losses[static_cast<std::size_t>(step)];
        EXPECT_NEAR(in_dram.losses[static_cast<std::size_t>(step)], expected, 1e-5 * expected)
            << ranks << " ranks, step " << step;
      }
      test::stream_everything(options, directory.path());
      expect_same_bits(train(config, options, kSteps, ranks), in_dram);
    }
  }
}

TEST(Trainer, AccumulationSplitsGiveTheSameNumbersToRounding) {
  TrainerOptions whole = tiny_options();
  whole.shape = {.micro_batches = 1, .sequences = 4, .sequence_length = 17};
  TrainerOptions split = tiny_options();
  split.shape = {.micro_batches = 4, .sequences = 1, .sequence_length = 17};
  // The same four sequences: batches are made of global micro-batches, so rebuild them from one.
  const ModelConfig config = test::tiny_llama();
  const Model model = make_transformer(config);
  const auto run = [&](const TrainerOptions& options) {
    const auto device = make_cpu_device(1);
    const auto self = make_self_communicator();
    Log log(1);
    Trainer trainer({*device, *self, log}, model, options, random_parameters(3));
    std::vector<double> losses;
    for (int step = 0; step < kSteps; ++step) {
      Batch batch = test::tiny_batch(split.shape, config.vocab_size, step, 0, 1);
      if (options.shape.micro_batches == 1) {
        MicroBatch all = batch.micro_batches[0];
        for (std::size_t i = 1; i < 4; ++i) {
          const MicroBatch& next = batch.micro_batches[i];
          all.sequences += next.sequences;
          all.ids.insert(all.ids.end(), next.ids.begin(), next.ids.end());
          all.labels.insert(all.labels.end(), next.labels.begin(), next.labels.end());
          all.positions.insert(all.positions.end(), next.positions.begin(), next.positions.end());
        }
        batch.micro_batches = {all};
      }
      losses.push_back(trainer.step(batch).loss);
    }
    return losses;
  };
  const std::vector<double> want = run(whole);
  const std::vector<double> got = run(split);
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-6 * want[i]);
}

}  // namespace
}  // namespace strata
