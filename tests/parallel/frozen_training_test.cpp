// Training with frozen parameters: the rest is trained as if nothing were frozen, wherever the
// bytes rest, and nothing is spent on what stays.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <mutex>
#include <ostream>

#include "core/model/initial_values.h"
#include "optimizer/split.h"
#include "tests/support/plain_visit.h"
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

struct Case {
  const char* name;
  ModelConfig config;
  std::function<bool(const std::string&)> frozen;
  int lowest = 0;  // block that is trained
};

void PrintTo(const Case& given, std::ostream* out) { *out << given.name; }

bool has(const std::string& name, const char* part) { return name.find(part) != std::string::npos; }

std::vector<Case> cases() {
  const auto all_but = [](const char* part) {
    return [part](const std::string& name) { return !has(name, part); };
  };
  return {
      {"NormsOnly", test::tiny_llama(), all_but("norm"), 1},
      {"EmbeddingAndAttentionFrozen", test::tiny_gpt2(false),
       [](const std::string& n) { return has(n, "embedding") || has(n, "attention."); }, 1},
      {"TopAndBottomFrozen", test::tiny_llama(), all_but("layers.1."), 2},
      {"OneProduct", test::tiny_llama(), all_but("layers.2.mlp.up"), 3},
      {"HeadOnly", test::tiny_llama(), all_but("head."), 4},
      {"TableOnly", test::tiny_llama(), all_but("head.weight"), 4},
      {"TiedTableFrozen", test::tiny_gpt2(true),
       [](const std::string& n) { return has(n, "tokens"); }, 0},
      {"TiedTableOnly", test::tiny_gpt2(true), all_but("tokens"), 0},
      {"UpperLayerFrozen", test::tiny_gpt2(true),
       [](const std::string& n) { return has(n, "layers.1.") || has(n, "positions"); }, 0},
  };
}

Model model_of(const Case& given) {
  Model model = make_transformer(given.config);
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) {
      if (given.frozen(spec->name)) model.freeze(spec->name);
    }
  }
  return model;
}

std::vector<float> start_of(Parameter parameter) {
  std::vector<float> values(static_cast<std::size_t>(parameter->shape.numel()));
  random_parameters(17)(parameter, 0, values);
  return values;
}

/// As the weights of products.
std::vector<float> rounded(std::vector<float> values, Dtype compute) {
  for (float& value : values) {
    if (compute == Dtype::kBf16) value = join(split(value).hi, 0);
    if (compute == Dtype::kF16) value = static_cast<float>(f16(value));
  }
  return values;
}

class FrozenTraining : public testing::TestWithParam<std::tuple<Case, Dtype>> {
 protected:
  const Case& given() const { return std::get<0>(GetParam()); }
  Dtype compute() const { return std::get<1>(GetParam()); }
  TrainerOptions options() const { return tiny_options(compute()); }
  TrainerOptions streamed() const {
    TrainerOptions result = options();
    test::stream_everything(result, directory_.path());
    return result;
  }
  test::TemporaryDirectory directory_;
};

Place& place(TrainerOptions& options, Section section) {
  return options.placement.sections[static_cast<std::size_t>(section)];
}

TEST_P(FrozenTraining, WhereTheStatesRestDoesNotChangeOneBit) {
  const Model model = model_of(given());
  for (const int ranks : {1, 2, 4}) {
    SCOPED_TRACE("ranks " + std::to_string(ranks));
    const TrainingResult want = train(model, options(), kSteps, ranks);
    expect_same_bits(train(model, streamed(), kSteps, ranks), want);
    TrainerOptions shallow = streamed();
    shallow.placement.prefetch_depth = 0;
    shallow.placement.activations = Place::kSwap;
    place(shallow, Section::kGradient) = Place::kSwap;
    expect_same_bits(train(model, shallow, kSteps, ranks), want);
    TrainerOptions ahead = streamed();  // updates that run ahead meet weights that are read
    place(ahead, Section::kHi) = place(ahead, Section::kLo) = Place::kDram;
    expect_same_bits(train(model, ahead, kSteps, ranks), want);
    place(ahead, Section::kWeights) = Place::kDram;
    const TrainingResult in_place = train(model, ahead, kSteps, ranks);
    expect_same_bits(in_place, want);
    EXPECT_EQ(in_place.plan.weights_in_place, ranks == 1 && compute() == Dtype::kBf16);
    for (const int stage : {0, 2}) {
      TrainerOptions staged = streamed();
      staged.placement.stage = stage;
      EXPECT_EQ(train(model, staged, kSteps, ranks).losses, want.losses) << "stage " << stage;
    }
  }
}

TEST_P(FrozenTraining, EveryBudgetGivesTheSameBits) {
  const Model model = model_of(given());
  TrainerOptions budgeted = options();
  const TrainingResult want = train(model, budgeted, kSteps);
  budgeted.placement.swap = {{.path = directory_.path(), .weight = 1}};
  test::expect_same_bits_in_every_budget(model, budgeted, kSteps, want, 8, 3);
}

TEST_P(FrozenTraining, FusedUpdatesWithoutClippingAreTheLazyOnes) {
  if (compute() == Dtype::kF16) GTEST_SKIP() << "fp16 has no fused updates";
  const Model model = model_of(given());
  TrainerOptions lazy = options();
  lazy.clip = Clip::kNone;
  const TrainingResult want = train(model, lazy, kSteps);
  TrainerOptions fused = streamed();
  fused.clip = Clip::kNone;
  fused.placement.update = UpdateTiming::kFused;
  expect_same_bits(train(model, fused, kSteps), want);
}

TEST_P(FrozenTraining, AStepMovesTheRestAsIfNothingWereFrozen) {
  const Model model = model_of(given());
  EXPECT_EQ(model.lowest_trainable(), given().lowest);
  TrainerOptions unclipped = streamed();
  unclipped.max_grad_norm = 0;
  unclipped.adamw.weight_decay = 0.1;
  const TrainingResult whole = train(given().config, unclipped, 1);
  const TrainingResult got = train(model, unclipped, 1);
  EXPECT_EQ(got.losses, whole.losses);
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) {
      const std::vector<float> start = start_of(spec.get());
      if (spec->frozen) {
        EXPECT_EQ(got.parameters.at(spec->name), rounded(start, compute())) << spec->name;
      } else {
        EXPECT_EQ(got.parameters.at(spec->name), whole.parameters.at(spec->name)) << spec->name;
        EXPECT_NE(got.parameters.at(spec->name), start) << spec->name;
      }
    }
  }
}

TEST_P(FrozenTraining, TheNormIsThatOfWhatIsTrained) {
  const Model model = model_of(given());
  const Model whole = make_transformer(given().config);
  const TrainerOptions one = streamed();
  const Batch batch = test::tiny_batch(one.shape, given().config.vocab_size, 0, 0, 1);
  test::PlainModel plain(whole, compute(), random_parameters(17));
  plain.run(batch, 1.0f / static_cast<float>(batch.counted_labels()));
  double squares = 0;
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) {
      if (spec->frozen) continue;
      for (const float g : plain.parameters().full_gradient(whole.find(spec->name))) {
        squares += static_cast<double>(g) * g;
      }
    }
  }
  const double norm = std::sqrt(squares);
  const double tolerance = compute() == Dtype::kF32 ? 1e-5 : 1e-2;
  EXPECT_NEAR(train(model, one, 1).norms.front(), norm, tolerance * norm);
}

INSTANTIATE_TEST_SUITE_P(Cases, FrozenTraining,
                         testing::Combine(testing::ValuesIn(cases()),
                                          testing::Values(Dtype::kF32, Dtype::kBf16, Dtype::kF16)),
                         [](const auto& given) {
                           return std::string(std::get<0>(given.param).name) + "_" +
                                  std::string(name(std::get<1>(given.param)));
                         });

/// Bytes that were asked to move, counted when they are submitted.
class CountingEngine final : public IoEngine {
 public:
  CountingEngine(const IoEngineOptions& options, SwapTraffic& total)
      : real_(make_io_engine(options)), total_(total) {}
  std::string name() const override { return real_->name(); }
  IoFile open_file(int descriptor, std::string path) override {
    return real_->open_file(descriptor, std::move(path));
  }
  void register_memory(std::span<std::byte> memory) override { real_->register_memory(memory); }
  IoCounters counters() const override { return real_->counters(); }
  Event submit(std::span<const IoRequest> requests) override {
    {
      const std::lock_guard lock(mutex_);
      for (const IoRequest& request : requests) {
        const bool reads = request.kind == IoRequest::Kind::kRead;
        (reads ? total_.forward_read : total_.forward_written) += request.memory.size();
      }
    }
    return real_->submit(requests);
  }

 private:
  std::unique_ptr<IoEngine> real_;
  std::mutex mutex_;
  SwapTraffic& total_;
};

/// Everything that a trainer of `steps` steps moves, from its start to its last flush.
SwapTraffic traffic_of(const Model& model, TrainerOptions options, int steps,
                       SwapTraffic& predicted) {
  SwapTraffic total;
  options.make_engine = [&total](const IoEngineOptions& io) -> std::unique_ptr<IoEngine> {
    return std::make_unique<CountingEngine>(io, total);
  };
  predicted = train(model, options, steps).predicted;
  return total;
}

TEST_P(FrozenTraining, MovesTheBytesThatAreForeseenAndWritesNothingOfWhatStays) {
  const Model model = model_of(given());
  for (const bool spills : {false, true}) {
    for (const int stage : {3, 2}) {
      SCOPED_TRACE(std::to_string(stage) + (spills ? " spills" : ""));
      TrainerOptions moved = streamed();
      moved.placement.stage = stage;
      if (spills) {
        place(moved, Section::kGradient) = Place::kSwap;
        moved.placement.activations = Place::kSwap;
      }
      SwapTraffic predicted;
      const SwapTraffic two = traffic_of(model, moved, 2, predicted);
      const SwapTraffic five = traffic_of(model, moved, 5, predicted);
      EXPECT_EQ(five.read() - two.read(), 3 * predicted.read());
      EXPECT_EQ(five.written() - two.written(), 3 * predicted.written());
      if (spills) continue;
      const Partition partition(model, 1);
      std::uint64_t trained = 0;
      for (int b = 0; b < partition.block_count(); ++b) {
        trained += static_cast<std::uint64_t>(partition.part(b).shard_numel());
      }
      EXPECT_EQ(predicted.written(), 12 * trained);
    }
  }
}

TEST(Frozen, MoreRanksGiveTheSameNumbersToRounding) {
  const test::TemporaryDirectory directory;
  for (const Case& given : cases()) {
    SCOPED_TRACE(given.name);
    const Model model = model_of(given);
    TrainerOptions options = tiny_options();
    options.shape.micro_batches = 4;
    const TrainingResult want = train(model, options, kSteps);
    test::stream_everything(options, directory.path());
    for (const int ranks : {2, 4}) {
      options.shape.micro_batches = 4 / ranks;
      const TrainingResult got = train(model, options, kSteps, ranks);
      for (std::size_t step = 0; step < want.losses.size(); ++step) {
        EXPECT_NEAR(got.losses[step], want.losses[step], 1e-5 * want.losses[step]) << ranks;
      }
    }
  }
}

TEST(Frozen, ParametersCannotBeReplaced) {
  const Case given = cases().front();
  const Model model = model_of(given);
  const auto device = make_cpu_device(1);
  const auto self = make_self_communicator();
  Log log(1);
  Trainer trainer({*device, *self, log}, model, tiny_options(), random_parameters(17));
  const std::string stays = "layers.0.mlp.up.weight";
  const std::vector<float> values = start_of(model.find(stays));
  EXPECT_THROW(trainer.write(stays, values), UsageError);
  EXPECT_EQ(trainer.read(stays), values);
}

}  // namespace
}  // namespace strata
