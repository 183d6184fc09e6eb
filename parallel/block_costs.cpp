#include "parallel/block_costs.h"

#include <algorithm>

#include "core/measuring_ops.h"

namespace strata {
namespace {

/// Views that have shapes but no memory. Not null: empty views mean "not wanted".
void* nowhere() { return reinterpret_cast<void*>(Workspace::kAlignment); }

class UnplacedParameters final : public ParameterTable {
 public:
  UnplacedParameters(int block, Dtype compute) : block_(block), compute_(compute) {}
  ConstTensorView weight(Parameter parameter) const override {
    return {nowhere(), compute_, parameter->shape};
  }
  TensorView gradient(Parameter parameter) const override {
    const bool own = parameter->block == block_;
    if (!own || parameter->frozen || parameter->row_tiled) return {};
    return {nowhere(), Dtype::kF32, parameter->shape};
  }

 private:
  int block_;
  Dtype compute_;
};

class MeasuringVisit final : public BackwardVisit {
 public:
  MeasuringVisit(const Model& model, int block, const StepShape& shape, Dtype compute,
                 bool wants_gradients)
      : shape_(shape),
        activation_(nowhere(), compute, {shape.tokens(), model.hidden_size()}),
        compute_(compute),
        last_(block + 1 == model.block_count()),
        wants_input_gradient_(block > model.lowest_trainable()),
        wants_gradients_(wants_gradients),
        parameters_(block, compute),
        stream_(make_inline_stream()) {
    const ConstTensorView ids(nowhere(), Dtype::kI32, {shape.tokens()});
    batch_ = {.ids = ids,
              .labels = ids,
              .positions = ids,
              .first_key = {},
              .sequences = shape.sequences,
              .tokens = shape.sequence_length};
  }

  int micro_batches() const override { return shape_.micro_batches; }
  const DeviceBatch& batch(int) const override { return batch_; }
  bool wants_gradients() const override { return wants_gradients_; }
  Graph make_graph(bool recording) override {
    return Graph(ops_, *stream_, workspace_, parameters_, compute_, recording, 0);
  }
  TensorView input(int) override { return activation_; }
  TensorView output_gradient(int) override { return last_ ? TensorView() : activation_; }
  bool wants_input_gradient() const override { return wants_input_gradient_; }
  void set_input_gradient(int, ConstTensorView) override {}
  TensorView begin_rows(Parameter parameter, std::int64_t, std::int64_t rows) override {
    return {nowhere(), Dtype::kF32, {rows, parameter->shape[1]}};
  }
  void finish_rows() override {}
  float loss_scale() const override { return 1.0f; }
  void add_losses(ConstTensorView) override {}

  void forward(const Block& block, bool first) {
    for (int i = 0; i < shape_.micro_batches; ++i) {
      Graph graph = make_graph(false);
      block.forward(graph, first ? Value() : graph.input(activation_, false), batch_);
    }
  }
  void logits(const Loss& loss) {
    Graph graph = make_graph(false);
    loss.logits(graph, graph.input(activation_, false));
  }
  const MeasuringOps& ops() const { return ops_; }
  std::size_t workspace() const { return workspace_.peak(); }

 private:
  StepShape shape_;
  TensorView activation_;
  DeviceBatch batch_;
  Dtype compute_;
  bool last_;
  bool wants_input_gradient_;
  bool wants_gradients_;
  UnplacedParameters parameters_;
  MeasuringOps ops_;
  Workspace workspace_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace

BlockCost measure_block(const Model& model, int block, const StepShape& shape, Dtype compute) {
  BlockCost cost;
  const Block& measured = model.block(block);
  MeasuringVisit forward(model, block, shape, compute, false);
  if (block + 1 == model.block_count()) {
    measured.backward(forward);  // without gradients: the loss only
  } else {
    forward.forward(measured, block == 0);
    cost.forward_operations = forward.ops().operations();
  }
  cost.forward_workspace = forward.workspace();
  cost.useful_operations = forward.ops().operations();
  if (block < model.lowest_trainable()) return cost;
  MeasuringVisit backward(model, block, shape, compute, true);
  measured.backward(backward);
  cost.backward_operations = backward.ops().operations();
  cost.backward_workspace = backward.workspace();
  cost.useful_operations +=
      std::min(2 * forward.ops().operations(), backward.ops().gradient_operations());
  return cost;
}

BlockCost measure_logits(const Model& model, std::int64_t rows, Dtype compute) {
  MeasuringVisit visit(model, model.block_count() - 1,
                       {.micro_batches = 1, .sequences = 1, .sequence_length = rows}, compute,
                       false);
  visit.logits(model.loss());
  BlockCost cost;
  cost.forward_operations = cost.useful_operations = visit.ops().operations();
  cost.forward_workspace = visit.workspace();
  return cost;
}

std::vector<BlockCost> measure_blocks(const Model& model, const StepShape& shape, Dtype compute) {
  std::vector<BlockCost> costs;
  for (int b = 0; b < model.block_count(); ++b) {
    costs.push_back(measure_block(model, b, shape, compute));
  }
  return costs;
}

}  // namespace strata
