// Training in fp16: beside fp32, and when gradients overflow.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "optimizer/loss_scale.h"
#include "tests/support/messages.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/same_bits.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using test::tiny_options;
using test::train;
using test::TrainingResult;

TEST(Fp16Training, TenStepsAreThoseOfFp32ToRounding) {
  for (const ModelConfig& config :
       {test::tiny_llama(), test::tiny_gpt2(true), test::tiny_gpt2(false)}) {
    SCOPED_TRACE(config.family + (config.tied ? " tied" : " untied"));
    const TrainingResult want = train(config, tiny_options(Dtype::kF32), 10);
    TrainerOptions options = tiny_options(Dtype::kF16);
    options.loss_scale.initial_scale_power = 12;  // nothing overflows
    const TrainingResult got = train(config, options, 10);
    for (std::size_t i = 0; i < want.losses.size(); ++i) {
      EXPECT_NEAR(got.losses[i], want.losses[i], 2e-2) << "step " << i;
      EXPECT_NEAR(got.norms[i], want.norms[i], 2e-2 * want.norms[i]) << "unscaled, step " << i;
      EXPECT_FALSE(got.reports[i].skipped) << "step " << i;
      EXPECT_EQ(got.reports[i].loss_scale, 4096);
      EXPECT_EQ(want.reports[i].loss_scale, 0) << "fp32 scales nothing";
    }
    EXPECT_LT(got.losses.back(), got.losses.front());
  }
}

/// As train(), with what every rank reported.
std::vector<TrainingResult> train_all(const ModelConfig& config, const TrainerOptions& options,
                                      int steps, int ranks) {
  const Model model = make_transformer(config);
  std::vector<TrainingResult> results(static_cast<std::size_t>(ranks));
  test::run_on_threads(ranks, [&](Communicator& communicator) {
    const std::unique_ptr<Device> device = make_cpu_device(1);
    Log log(1);
    results[static_cast<std::size_t>(communicator.rank())] =
        test::train_rank({*device, communicator, log}, model, options, steps);
  });
  return results;
}

class Overflow : public testing::TestWithParam<int> {};

TEST_P(Overflow, SkipsStepsOnAllRanksUntilTheScaleFitsAndCountsThem) {
  constexpr int kSteps = 16;
  const test::TemporaryDirectory directory;
  TrainerOptions options = tiny_options(Dtype::kF16);
  options.loss_scale.initial_scale_power = 22;
  options.schedule = {.kind = ScheduleKind::kLinear, .learning_rate = 3e-3, .total_steps = 40};
  const auto all = train_all(test::tiny_llama(), options, kSteps, GetParam());
  const std::vector<StepReport>& reports = all.front().reports;
  LossScaler expected(options.loss_scale);
  std::int64_t skipped = 0;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    EXPECT_EQ(reports[i].loss_scale, expected.scale()) << "step " << i;
    EXPECT_EQ(reports[i].learning_rate, options.schedule.at(static_cast<std::int64_t>(i) - skipped))
        << "the schedule waits for updates";
    skipped += reports[i].skipped ? 1 : 0;
    EXPECT_EQ(reports[i].skipped_steps, skipped);
    expected.finish_step(reports[i].skipped);
    for (const TrainingResult& other : all) {
      EXPECT_EQ(other.reports[i].skipped, reports[i].skipped) << "step " << i;
      EXPECT_EQ(other.reports[i].loss_scale, reports[i].loss_scale) << "step " << i;
    }
  }
  EXPECT_GE(skipped, 3) << "the scale was not too large";
  EXPECT_LE(skipped, kSteps / 2) << "and did not recover";
  EXPECT_FALSE(reports.back().skipped);
  EXPECT_LT(all.front().losses.back(), all.front().losses.front());
  test::stream_everything(options, directory.path());
  options.placement.sections[static_cast<std::size_t>(Section::kGradient)] = Place::kSwap;
  test::expect_same_bits(train_all(test::tiny_llama(), options, kSteps, GetParam()).front(),
                         all.front());
}

TEST_P(Overflow, LeavesTheWeightsAsTheyAre) {
  TrainerOptions options = tiny_options(Dtype::kF16);
  options.loss_scale.initial_scale_power = 40;
  const TrainingResult start = train(test::tiny_gpt2(true), options, 0, GetParam());
  const TrainingResult got = train(test::tiny_gpt2(true), options, 3, GetParam());
  for (const StepReport& report : got.reports) EXPECT_TRUE(report.skipped);
  EXPECT_EQ(got.parameters, start.parameters);
}

TEST_P(Overflow, EndsTheRunAtTheSmallestScale) {
  TrainerOptions options = tiny_options(Dtype::kF16);
  options.loss_scale = {.initial_scale_power = 42, .hysteresis = 1, .min_loss_scale = 0x1p40};
  EXPECT_EQ(train(test::tiny_llama(), options, 2, GetParam()).reports.back().loss_scale, 0x1p41);
  test::expect_message<Error>([&] { train(test::tiny_llama(), options, 3, GetParam()); },
                              {"gradients overflow fp16 with the smallest loss scale", "bf16"});
}

INSTANTIATE_TEST_SUITE_P(Ranks, Overflow, testing::Values(1, 2),
                         [](const auto& ranks) { return std::to_string(ranks.param); });

TEST(Fp16Training, APendingUpdateHasTheScaleOfItsOwnStep) {
  TrainerOptions options = tiny_options(Dtype::kF16);
  options.optimizer = OptimizerKind::kSgd;  // unlike Adam, it feels a wrong scale
  options.schedule.learning_rate = 0.3;
  options.max_grad_norm = 0;
  options.loss_scale.loss_scale = 4096;
  const TrainingResult want = train(test::tiny_llama(), options, 8);
  EXPECT_LT(want.losses.back(), want.losses.front() - 0.05);
  options.loss_scale = {.initial_scale_power = 9, .window = 1};  // doubles after each step
  const TrainingResult got = train(test::tiny_llama(), options, 8);
  EXPECT_EQ(got.reports.back().loss_scale, 0x1p15);
  for (std::size_t i = 0; i < want.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], want.losses[i], 2e-3) << "step " << i;
  }
}

TEST(Fp16Training, ClipsByTheUnscaledNorm) {
  TrainerOptions options = tiny_options(Dtype::kF16);
  options.optimizer = OptimizerKind::kSgd;
  options.schedule.learning_rate = 0.5;
  options.max_grad_norm = 0.1;
  options.loss_scale.loss_scale = 64;
  const TrainingResult small = train(test::tiny_llama(), options, 5);
  options.loss_scale.loss_scale = 8192;
  const TrainingResult large = train(test::tiny_llama(), options, 5);
  options.placement.compute = Dtype::kF32;
  const TrainingResult want = train(test::tiny_llama(), options, 5);
  for (std::size_t i = 0; i < want.losses.size(); ++i) {
    EXPECT_GT(want.norms[i], options.max_grad_norm) << "nothing was clipped";
    EXPECT_NEAR(small.losses[i], want.losses[i], 1e-2);
    EXPECT_NEAR(large.losses[i], want.losses[i], 1e-2);
  }
}

TEST(Fp16Training, RefusesFusedUpdates) {
  TrainerOptions options = tiny_options(Dtype::kF16);
  options.clip = Clip::kNone;
  options.placement.update = UpdateTiming::kFused;
  test::expect_message<UsageError>([&] { train(test::tiny_llama(), options, 1); },
                                   {"--compute fp16", "--update fused", "--update lazy"});
}

TEST(Fp16Training, RefusesWeightsBeyondItsRangeFrozenOrNot) {
  const std::string large = "layers.1.mlp.up.weight";
  for (const bool frozen : {false, true}) {
    Model model = make_transformer(test::tiny_llama());
    if (frozen) model.freeze(large);
    const ParameterSource source = [&](Parameter parameter, std::int64_t begin,
                                       std::span<float> values) {
      random_parameters(3)(parameter, begin, values);
      if (parameter->name == large) values.back() = -7e4f;
    };
    const std::unique_ptr<Device> device = make_cpu_device(1);
    const std::unique_ptr<Communicator> self = make_self_communicator();
    Log log(1);
    test::expect_message<UsageError>(
        [&] {
          Trainer({*device, *self, log}, model, tiny_options(Dtype::kF16), source);
        },
        {large, "-70000", "65504", "--compute bf16"});
    EXPECT_NO_THROW(Trainer({*device, *self, log}, model, tiny_options(Dtype::kBf16), source));
  }
}

}  // namespace
}  // namespace strata
