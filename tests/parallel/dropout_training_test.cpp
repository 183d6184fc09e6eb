// Dropout in a trainer: the same masks whatever the ranks, the split and the placement, none in
// evaluation, and another one in every step.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/support/plain_visit.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/same_bits.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

using test::run_on_threads;
using test::tiny_options;

constexpr int kSteps = 4;
constexpr std::int64_t kSequences = 8;  // of a step, over all ranks
constexpr DropoutRates kRates{.embedding = 0.1f, .residual = 0.2f, .attention = 0.15f};

/// This rank's part of a step of kSequences sequences, in the order of the ranks.
Batch batch_of(const StepShape& shape, int step, int rank) {
  Batch all = test::tiny_batch(
      {.micro_batches = kSequences, .sequences = 1, .sequence_length = shape.sequence_length}, 97,
      step, 0, 1);
  const std::int64_t own = shape.micro_batches * shape.sequences;
  Batch batch{.micro_batches = {}, .first_sequence = step * kSequences + rank * own};
  for (std::int64_t i = 0; i < own; ++i) {
    MicroBatch& next = all.micro_batches.at(static_cast<std::size_t>(rank * own + i));
    if (i % shape.sequences == 0) {
      batch.micro_batches.push_back(std::move(next));
      continue;
    }
    MicroBatch& sum = batch.micro_batches.back();
    ++sum.sequences;
    sum.ids.insert(sum.ids.end(), next.ids.begin(), next.ids.end());
    sum.labels.insert(sum.labels.end(), next.labels.begin(), next.labels.end());
    sum.positions.insert(sum.positions.end(), next.positions.begin(), next.positions.end());
  }
  return batch;
}

TrainerOptions options_of(int micro_batches, int ranks, Dtype compute = Dtype::kF32) {
  TrainerOptions options = tiny_options(compute);
  options.shape.micro_batches = micro_batches;
  options.shape.sequences = kSequences / (micro_batches * ranks);
  return options;
}

struct Curve {
  std::vector<double> losses;
  std::vector<double> norms;
  bool operator==(const Curve&) const = default;
};

Curve run(const Model& model, const TrainerOptions& options, int ranks = 1, int steps = kSteps) {
  Curve result;
  run_on_threads(ranks, [&](Communicator& world) {
    const std::unique_ptr<Device> device = make_cpu_device(1);
    Log log(1);
    Trainer trainer({*device, world, log}, model, options, random_parameters(17));
    for (int step = 0; step < steps; ++step) {
      const StepReport report = trainer.step(batch_of(options.shape, step, world.rank()));
      if (world.rank() != 0) continue;
      result.losses.push_back(report.loss);
      result.norms.push_back(report.gradient_norm);
    }
  });
  return result;
}

void expect_near(const Curve& got, const Curve& want, double relative) {
  for (std::size_t i = 0; i < want.losses.size(); ++i) {
    EXPECT_NEAR(got.losses.at(i), want.losses[i], relative * want.losses[i]) << "step " << i;
    EXPECT_NEAR(got.norms.at(i), want.norms[i], 100 * relative * want.norms[i]) << "step " << i;
  }
}

TEST(DropoutTraining, MasksKnowNeitherRanksNorMicroBatches) {
  for (const ModelConfig& config : {test::tiny_gpt2(true), test::tiny_llama()}) {
    const Model model = make_transformer(config, kRates);
    const Curve want = run(model, options_of(1, 1));
    for (const auto& [ranks, micro_batches] : {std::pair{1, 4}, {1, 8}, {2, 2}, {4, 1}}) {
      SCOPED_TRACE(config.family + ", ranks " + std::to_string(ranks));
      expect_near(run(model, options_of(micro_batches, ranks), ranks), want, 1e-6);
    }
  }
}

TEST(DropoutTraining, WhereTheStatesRestDoesNotChangeOneBit) {
  test::TemporaryDirectory directory;
  const Model model = make_transformer(test::tiny_gpt2(true), kRates);
  for (const Dtype compute : {Dtype::kF32, Dtype::kBf16}) {
    TrainerOptions options = options_of(2, 2, compute);
    const Curve want = run(model, options, 2);
    test::stream_everything(options, directory.path());
    EXPECT_EQ(run(model, options, 2), want);
    options.placement.activations = Place::kSwap;
    options.placement.prefetch_depth = 0;
    EXPECT_EQ(run(model, options, 2), want);
  }
}

TEST(DropoutTraining, SeedsMatterWhereSomethingIsDroppedAndOnlyThere) {
  const TrainerOptions options = options_of(2, 1);
  TrainerOptions other = options;
  other.seed = options.seed + 1;
  for (const DropoutRates& rates :
       {DropoutRates{.embedding = 0.1f}, {.residual = 0.1f}, {.attention = 0.1f}}) {
    const Model model = make_transformer(test::tiny_gpt2(true), rates);
    EXPECT_EQ(run(model, options), run(model, options));
    EXPECT_NE(run(model, options).losses, run(model, other).losses);
  }
  const Model none = make_transformer(test::tiny_gpt2(true));
  EXPECT_EQ(run(none, options), run(none, other));
}

TEST(DropoutTraining, EvaluationDropsNothing) {
  const TrainerOptions options = options_of(2, 1);
  const std::unique_ptr<Device> device = make_cpu_device(1);
  const std::unique_ptr<Communicator> self = make_self_communicator();
  Log log(1);
  const Model model = make_transformer(test::tiny_gpt2(true), kRates);
  const Model none = make_transformer(test::tiny_gpt2(true));
  Trainer trainer({*device, *self, log}, model, options, random_parameters(17));
  Trainer plain({*device, *self, log}, none, options, random_parameters(17));
  const Batch batch = batch_of(options.shape, 9, 0);
  EXPECT_EQ(trainer.evaluate(batch).loss_sum, plain.evaluate(batch).loss_sum);
  EXPECT_NE(trainer.step(batch).loss, plain.step(batch).loss);
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) {
      plain.write(spec->name, trainer.read(spec->name));
    }
  }
  EXPECT_EQ(trainer.evaluate(batch).loss_sum, plain.evaluate(batch).loss_sum);
}

/// The loss of a step is the one of PlainModel with the masks of that step's number, also when the
/// step before was left out.
TEST(DropoutTraining, AStepHasTheMasksOfItsNumber) {
  const TrainerOptions options = options_of(2, 1);
  const Model model = make_transformer(test::tiny_gpt2(true), kRates);
  const Batch batch = batch_of(options.shape, 3, 0);
  const auto expected = [&](std::uint64_t step) {
    test::PlainModel plain(model, Dtype::kF32, random_parameters(17));
    plain.draw(options.seed, step);
    const std::vector<float> losses = plain.run(batch, 1.0f);
    return std::accumulate(losses.begin(), losses.end(), 0.0) /
           static_cast<double>(batch.counted_labels());
  };
  const std::unique_ptr<Device> device = make_cpu_device(1);
  const std::unique_ptr<Communicator> self = make_self_communicator();
  Log log(1);
  Trainer trainer({*device, *self, log}, model, options, random_parameters(17));
  Batch nothing = batch;
  for (MicroBatch& part : nothing.micro_batches) part.labels.assign(part.ids.size(), kIgnoredLabel);
  EXPECT_TRUE(trainer.step(nothing).skipped);
  const double got = trainer.step(batch).loss;
  EXPECT_NEAR(got, expected(2), 1e-6 * got);
  for (const std::uint64_t other : {0, 1, 3}) EXPECT_GT(std::abs(got - expected(other)), 1e-4);
}

TEST(DropoutTraining, LearnsAMappingOfTokens) {
  TrainerOptions options = options_of(2, 1);
  options.schedule.learning_rate = 1e-2;
  const Model model = make_transformer(test::tiny_gpt2(true),
                                       {.embedding = 0.1f, .residual = 0.1f, .attention = 0.1f});
  const Curve result = run(model, options, 1, 60);
  EXPECT_GT(result.losses.front(), 4.0);
  EXPECT_LT(result.losses.back(), 1.0);
}

}  // namespace
}  // namespace strata
