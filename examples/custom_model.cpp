// A model of one's own, from parameters to loss: read it from top to bottom.
//
//     mpirun -n 2 custom_model [SWAP_DIRECTORY]
//
// A model is a list of blocks. While a block computes, all of it is in memory; at all other times
// each rank holds a part, in memory or in the swap directory. A block sees nothing of that: it
// declares its parameters and says how to compute with them.
#include <fmt/format.h>

#include "launch/strata.h"

namespace {

using namespace strata;

constexpr std::int64_t kVocabulary = 61, kHidden = 32, kLength = 24;

const ParameterOptions kTable{.initializer = Initializer::normal(0.2f)};
const ParameterOptions kFixed{.initializer = Initializer::normal(0.02f), .frozen = true};
const ParameterOptions kProduct{.initializer = Initializer::normal(0.1f)};
const ParameterOptions kGain{.initializer = Initializer::constant(1), .decay = false};

/// The first block gets no input; it makes activations [T, C] of the tokens [T].
class Lookup final : public Block {
 public:
  Lookup() : Block("lookup") {}
  Parameter tokens() const { return tokens_; }
  Value forward(Graph& graph, const Value&, const DeviceBatch& batch) const override {
    return graph.add_embedding(graph.embedding(batch.ids, tokens_), batch.positions, positions_);
  }

 private:
  Parameter tokens_ = declare("tokens", {kVocabulary, kHidden}, kTable);  // is "lookup.tokens"
  Parameter positions_ = declare("positions", {kLength, kHidden}, kFixed);
};

/// x + down(silu(gate n) * up n), n = norm(x). The graph finds the gradient by itself.
class Mixer final : public Block {
 public:
  explicit Mixer(int index) : Block(fmt::format("mixer.{}", index)) {}
  Value forward(Graph& graph, const Value& x, const DeviceBatch&) const override {
    const Value n = graph.rms_norm(x, norm_, 1e-5f);
    const Value gate = graph.linear(n, gate_, nullptr), up = graph.linear(n, up_, nullptr);
    const Value mixed = graph.gated_activation(Activation::kSilu, gate, up);
    return graph.add(x, graph.linear(mixed, down_, nullptr));
  }

 private:
  Parameter norm_ = declare("norm", {kHidden}, kGain);
  Parameter gate_ = declare("gate", {2 * kHidden, kHidden}, kProduct);  // products read [out, in]
  Parameter up_ = declare("up", {2 * kHidden, kHidden}, kProduct);
  Parameter down_ = declare("down", {kHidden, 2 * kHidden}, kProduct);
};

/// The last block turns activations into the loss of each token. This one is tied: it borrows the
/// table of tokens, whose gradient is the sum of both uses.
class TiedLoss final : public Loss {
 public:
  explicit TiedLoss(Parameter tokens) : Loss("loss"), tokens_(borrow(tokens)) {}
  Value forward(Graph& graph, const Value& x, const DeviceBatch& batch) const override {
    return losses(graph, x, batch, {});
  }

  /// Loss::backward() would do, but the gradient of a borrowed table does not go over the tape: it
  /// leaves in tiles of at most kRowTile rows. This table is one.
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
    const Value n = graph.rms_norm(x, norm_, 1e-5f);
    // An operation of one's own: compute the output, then record what to do with its gradient.
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
  Parameter norm_ = declare("norm", {kHidden}, kGain);
};

Model make_model() {
  std::vector<std::unique_ptr<Block>> blocks;
  auto lookup = std::make_unique<Lookup>();
  auto loss = std::make_unique<TiedLoss>(lookup->tokens());
  blocks.push_back(std::move(lookup));
  for (int i = 0; i < 3; ++i) blocks.push_back(std::make_unique<Mixer>(i));
  return Model(std::move(blocks), std::move(loss), kHidden, kVocabulary);
}

/// A sequence in which five times a token and three more follows it; each rank has another one.
Batch make_batch(std::int64_t step, int rank) {
  MicroBatch part{1, kLength, {}, {}, {}, {}};
  auto token = static_cast<std::int32_t>((step * 17 + rank * 7) % kVocabulary);
  for (std::int32_t t = 0; t < kLength; ++t) {
    part.ids.push_back(token);
    token = (5 * token + 3) % kVocabulary;
    part.labels.push_back(token);  // what should follow
    part.positions.push_back(t);
  }
  return {.micro_batches = {part}, .first_sequence = 0};
}

void train(Runtime& runtime, int argc, char** argv) {
  TrainerOptions options;
  options.shape = {.micro_batches = 1, .sequences = 1, .sequence_length = kLength};
  options.schedule.learning_rate = 1e-2;
  if (argc > 1) options.placement.swap = {{.path = argv[1]}};
  const Model model = make_model();
  Trainer trainer(runtime.context(), model, options, random_parameters(7));

  // read() and write() are collective, as all of a trainer is: every rank calls them.
  trainer.write("mixer.0.norm", std::vector<float>(kHidden, 0.5f));
  trainer.on_step([&](const StepReport& report) {
    if (report.step % 50 != 0) return;
    const float gain = trainer.read("mixer.0.norm").front();
    runtime.log(fmt::format("step {:3}  loss {:.4f}  gain {:.4f}", report.step, report.loss, gain));
  });
  for (std::int64_t step = 0; step < 200; ++step) {
    trainer.step(make_batch(step, runtime.communicator().rank()));
  }
}

}  // namespace

int main(int argc, char** argv) {
  return run(argc, argv, [&](Runtime& runtime) { train(runtime, argc, argv); });
}
