#include "core/model/graph.h"

#include <fmt/format.h>

#include <utility>

namespace strata {

struct GradientSlot {
  Value gradient;
};

Graph::Graph(Ops& ops, Stream& stream, Workspace& workspace, const ParameterTable& parameters,
             Dtype compute, bool recording, std::optional<std::uint64_t> randomness)
    : ops_(ops),
      stream_(stream),
      workspace_(workspace),
      parameters_(parameters),
      compute_(compute),
      recording_(recording),
      randomness_(randomness) {}

void Graph::attend_over(const PagedKv& pages, std::span<const SequenceRows> sequences) {
  expects(!recording_, "attention over pages has no gradient");
  pages_ = &pages;
  sequences_ = sequences;
}

Value Graph::input(TensorView tensor, bool requires_gradient) {
  auto slot = recording_ && requires_gradient ? std::make_shared<GradientSlot>() : nullptr;
  return {tensor, nullptr, std::move(slot)};
}

Value Graph::allocate(Dtype dtype, Shape shape) {
  const std::size_t bytes = static_cast<std::size_t>(shape.numel()) * size_bytes(dtype);
  auto memory = workspace_.allocate(bytes);
  const TensorView view(memory->data(), dtype, shape);
  return {view, std::move(memory), nullptr};
}

bool Graph::trainable(Parameter parameter) const {
  if (!recording_ || parameter == nullptr || parameter->frozen) return false;
  if (parameters_.gradient(parameter).empty()) {
    throw Error(
        fmt::format("{} is row-tiled or another block's, so its gradient cannot be added to on a "
                    "tape: override "
                    "backward() and send it in tiles with BackwardVisit::begin_rows()",
                    parameter->name));
  }
  return true;
}

Value Graph::record(Value output, BackwardFunction backward) {
  expects(recording_, "only a recording graph has a tape");
  output.slot_ = std::make_shared<GradientSlot>();
  tape_.push_back({output.slot_, std::move(backward)});
  return output;
}

void Graph::contribute(const Value& x, Value gradient) {
  if (!x.slot_) return;
  Value& sum = x.slot_->gradient;
  if (!sum) {
    sum = std::move(gradient);
    return;
  }
  // Gradients are shared between the inputs of a sum, so only unshared memory may be added to.
  const bool into_sum = sum.unique();
  const bool into_new = !into_sum && gradient.unique();
  Value target = into_sum ? sum : into_new ? gradient : allocate(compute_, x.shape());
  ops_.add(sum.view(), gradient.view(), target.view(), stream_);
  sum = std::move(target);
}

void Graph::contribute(const Value& x, const std::function<void(TensorView)>& compute) {
  if (!x.slot_) return;
  Value gradient = allocate(x.view().dtype(), x.shape());
  compute(gradient.view());
  contribute(x, std::move(gradient));
}

void Graph::backward(const Value& output, Value seed) {
  expects(output.slot_ != nullptr, "the output does not depend on anything that has a gradient");
  contribute(output, std::move(seed));
  while (!tape_.empty()) {
    const Record record = std::move(tape_.back());
    tape_.pop_back();
    const Value gradient = std::exchange(record.output->gradient, Value());
    if (gradient) record.backward(gradient);
  }
}

Value Graph::take_gradient(const Value& input) {
  return input.slot_ ? std::exchange(input.slot_->gradient, Value()) : Value();
}

}  // namespace strata
