// Blocks that are no transformer: what a trainer promises to any model.
#include <gtest/gtest.h>

#include "core/model/initial_values.h"
#include "parallel/trainer.h"
#include "tests/support/plain_visit.h"
#include "tests/support/run_on_threads.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_training.h"

namespace strata {
namespace {

constexpr std::int64_t kVocabulary = 83, kHidden = 48, kLength = 11;
constexpr float kRate = 0.5f;

/// A dense table that another block borrows, beside a frozen one.
class Lookup final : public Block {
 public:
  Lookup() : Block("lookup") {}
  Parameter tokens() const { return tokens_; }
  Value forward(Graph& graph, const Value&, const DeviceBatch& batch) const override {
    return graph.add_embedding(graph.embedding(batch.ids, tokens_), batch.positions, positions_);
  }

 private:
  Parameter tokens_ =
      declare("tokens", {kVocabulary, kHidden}, {.initializer = Initializer::normal(0.5f)});
  Parameter positions_ = declare("positions", {kLength, kHidden},
                                 {.initializer = Initializer::normal(0.5f), .frozen = true});
};

/// Nothing in it is trained.
class Fixed final : public Block {
 public:
  Fixed() : Block("fixed") {}
  Value forward(Graph& graph, const Value& x, const DeviceBatch&) const override {
    return graph.add(x, graph.linear(x, weight_, nullptr));
  }

 private:
  Parameter weight_ = declare("weight", {kHidden, kHidden},
                              {.initializer = Initializer::normal(0.1f), .frozen = true});
};

class TiedLoss final : public Loss {
 public:
  explicit TiedLoss(Parameter tokens) : Loss("loss"), tokens_(borrow(tokens)) {}
  Value forward(Graph& graph, const Value& x, const DeviceBatch& batch) const override {
    return losses(graph, x, batch, {});
  }
  void backward(BackwardVisit& visit) const override {
    const bool training = visit.wants_gradients();
    const TensorView tile = training ? visit.begin_rows(tokens_, 0, kVocabulary) : TensorView();
    for (int i = 0; i < visit.micro_batches(); ++i) {
      Graph graph = visit.make_graph(training);
      graph.set_loss_scale(visit.loss_scale());
      const Value x = graph.input(visit.input(i), true);
      const Value loss = losses(graph, x, visit.batch(i), tile);
      visit.add_losses(loss.view());
      if (!training) continue;
      graph.backward_loss(loss);
      visit.set_input_gradient(i, graph.take_gradient(x).view());
    }
    if (training) visit.finish_rows();
  }

 private:
  Value losses(Graph& graph, const Value& x, const DeviceBatch& batch, TensorView gradient) const {
    const Value n = graph.rms_norm(x, gain_, 1e-5f);
    const ConstTensorView table = graph.parameters().weight(tokens_);
    Value logits = graph.allocate(graph.compute_dtype(), {n.shape()[0], kVocabulary});
    graph.ops().linear(n.view(), table, {}, logits.view(), graph.stream());
    if (graph.recording()) {
      logits = graph.record(logits, [&graph, n, table, gradient](const Value& dy) {
        graph.ops().linear_backward_weight(dy.view(), n.view(), gradient, {}, graph.stream());
        graph.contribute(n, [&](TensorView dn) {
          graph.ops().linear_backward_input(dy.view(), table, dn, false, graph.stream());
        });
      });
    }
    return graph.cross_entropy(logits, batch.labels);
  }

  Parameter tokens_;
  Parameter gain_ = declare("gain", {kHidden}, {.initializer = Initializer::constant(1.0f)});
};

Model make_model() {
  std::vector<std::unique_ptr<Block>> blocks;
  auto lookup = std::make_unique<Lookup>();
  auto loss = std::make_unique<TiedLoss>(lookup->tokens());
  blocks.push_back(std::move(lookup));
  blocks.push_back(std::make_unique<Fixed>());
  return Model(std::move(blocks), std::move(loss), kHidden, kVocabulary);
}

TrainerOptions sgd_options(int ranks) {
  TrainerOptions options;
  options.shape = {.micro_batches = 6 / ranks, .sequences = 1, .sequence_length = kLength};
  options.optimizer = OptimizerKind::kSgd;
  options.schedule = {.kind = ScheduleKind::kConstant, .learning_rate = kRate};
  options.max_grad_norm = 0;
  options.placement.compute = Dtype::kF32;
  return options;
}

/// One plain step of gradient descent shows every gradient.
TEST(CustomModel, GetsTheGradientsOfAPlainRunOnAnyNumberOfRanks) {
  const Model model = make_model();
  const Batch whole = test::tiny_batch(sgd_options(1).shape, kVocabulary, 0, 0, 1);
  test::PlainModel plain(model, Dtype::kF32, random_parameters(4));
  plain.run(whole, 1.0f / static_cast<float>(whole.counted_labels()));
  const test::TemporaryDirectory swap;
  for (const int ranks : {1, 2, 3}) {
    for (const bool streamed : {false, true}) {
      TrainerOptions options = sgd_options(ranks);
      if (streamed) test::stream_everything(options, swap.path());
      test::run_on_threads(ranks, [&](Communicator& communicator) {
        const std::unique_ptr<Device> device = make_cpu_device(1);
        Log log(1);
        Trainer trainer({*device, communicator, log}, model, options, random_parameters(4));
        trainer.step(test::tiny_batch(options.shape, kVocabulary, 0, communicator.rank(), ranks));
        for (const char* name :
             {"lookup.tokens", "lookup.positions", "fixed.weight", "loss.gain"}) {
          const Parameter parameter = model.find(name);
          const auto gradient = plain.parameters().full_gradient(parameter);
          const auto start = plain.parameters().values(parameter);
          const std::vector<float> got = trainer.read(name);
          for (std::size_t i = 0; i < got.size(); ++i) {
            ASSERT_NEAR(got[i], start[i] - kRate * gradient[i], 2e-6f)
                << name << ", element " << i << ", ranks " << ranks;
          }
          const bool moved = !std::equal(got.begin(), got.end(), start.begin());
          EXPECT_EQ(moved, !parameter->frozen) << name;
        }
      });
    }
  }
}

TEST(CustomModel, IsReadAndWrittenByNameFromACallbackOfEveryStep) {
  const Model model = make_model();
  const std::vector<float> halves(kHidden, 0.5f);
  std::vector<std::int64_t> steps;
  test::run_on_threads(2, [&](Communicator& communicator) {
    const std::unique_ptr<Device> device = make_cpu_device(1);
    Log log(1);
    const TrainerOptions options = sgd_options(2);
    Trainer trainer({*device, communicator, log}, model, options, random_parameters(4));
    trainer.on_step([&](const StepReport& report) {
      EXPECT_NE(trainer.read("loss.gain"), halves) << "the update of this step is in it";
      trainer.write("loss.gain", halves);
      EXPECT_EQ(trainer.read("loss.gain"), halves);
      if (communicator.rank() == 0) steps.push_back(report.step);
    });
    for (int step = 0; step < 3; ++step) {
      trainer.step(test::tiny_batch(options.shape, kVocabulary, step, communicator.rank(), 2));
    }
    EXPECT_THROW(trainer.read("loss.weight"), UsageError);
  });
  EXPECT_EQ(steps, (std::vector<std::int64_t>{1, 2, 3}));
}

}  // namespace
}  // namespace strata
