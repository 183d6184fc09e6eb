#include "tests/support/plain_visit.h"

#include <algorithm>
#include <cstring>

#include "core/model/transformer.h"
#include "core/random.h"
#include "optimizer/split.h"

namespace strata::test {
namespace {

constexpr std::size_t kWorkspaceBytes = 256 << 20;  // reserved, used only where written

Buffer host_copy(ConstTensorView from) {
  Buffer copy = allocate_host(from.bytes());
  std::memcpy(copy.data(), from.data(), from.bytes());
  return copy;
}

DeviceBatch views_of(const MicroBatch& batch, std::int64_t first_sequence) {
  const auto view = [](const std::vector<std::int32_t>& values) {
    return ConstTensorView(values.data(), Dtype::kI32, {static_cast<std::int64_t>(values.size())});
  };
  return {.ids = view(batch.ids),
          .labels = view(batch.labels),
          .positions = view(batch.positions),
          .first_key = batch.first_key.empty() ? ConstTensorView() : view(batch.first_key),
          .sequences = batch.sequences,
          .tokens = batch.tokens_per_sequence,
          .first_sequence = first_sequence};
}

}  // namespace

PlainParameters::PlainParameters(const Model& model, Dtype compute, const ParameterSource& source)
    : compute_(compute) {
  for (int b = 0; b < model.block_count(); ++b) {
    for (const auto& spec : model.block(b).parameters()) {
      const auto numel = static_cast<std::size_t>(spec->shape.numel());
      Stored& stored = stored_[spec.get()];
      stored.weight = allocate_host(numel * size_bytes(compute));
      stored.gradient.assign(numel, 0.0f);
      std::vector<float> values(numel);
      source(spec.get(), 0, values);
      set_values(spec.get(), values);
    }
  }
}

void PlainParameters::set_values(Parameter parameter, std::span<const float> values) {
  Stored& stored = stored_.at(parameter);
  expects(static_cast<std::int64_t>(values.size()) == parameter->shape.numel(),
          "the values have the size of the parameter");
  stored.values.assign(values.begin(), values.end());
  const TensorView weight = stored.weight.view(compute_, parameter->shape);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (compute_ == Dtype::kF32) {
      weight.as<float>()[i] = values[i];
    } else if (compute_ == Dtype::kF16) {
      weight.as<f16>()[i] = f16(values[i]);
    } else {
      weight.as<bf16>()[i].bits = split(values[i]).hi;
    }
  }
}

ConstTensorView PlainParameters::weight(Parameter parameter) const {
  return at(parameter).weight.view(compute_, parameter->shape);
}

TensorView PlainParameters::gradient(Parameter parameter) const {
  const bool own = parameter->block == visited_;
  if (!own || parameter->frozen || parameter->row_tiled) return {};
  return {at(parameter).gradient.data(), Dtype::kF32, parameter->shape};
}

std::span<const float> PlainParameters::full_gradient(Parameter parameter) const {
  return at(parameter).gradient;
}

void PlainParameters::add_tile(Parameter parameter, std::int64_t row_begin,
                               std::span<const float> tile) {
  float* rows = at(parameter).gradient.data() + row_begin * parameter->shape[1];
  std::transform(tile.begin(), tile.end(), rows, rows, std::plus<>());
}

void PlainParameters::clear_gradients() {
  for (auto& [parameter, stored] : stored_) {
    std::fill(stored.gradient.begin(), stored.gradient.end(), 0.0f);
  }
}

/// One block's visit of a PlainModel.
class PlainVisit final : public BackwardVisit {
 public:
  PlainVisit(PlainModel& owner, int block, float loss_scale, bool wants_gradients)
      : owner_(owner), block_(block), loss_scale_(loss_scale), wants_gradients_(wants_gradients) {
    owner.parameters_.visit(block);
  }

  int micro_batches() const override { return static_cast<int>(owner_.device_batches_.size()); }
  const DeviceBatch& batch(int micro_batch) const override {
    return owner_.device_batches_.at(PlainModel::index(micro_batch));
  }
  bool wants_gradients() const override { return wants_gradients_; }
  Graph make_graph(bool recording) override {
    return Graph(owner_.device_->ops(), *owner_.stream_, workspace_, owner_.parameters_,
                 owner_.compute_, recording, owner_.randomness(block_));
  }
  TensorView input(int micro_batch) override {
    return block_ == 0 ? TensorView() : owner_.activation(block_ - 1, micro_batch);
  }
  TensorView output_gradient(int micro_batch) override {
    if (block_ + 1 == owner_.model_.block_count()) return {};
    return owner_.gradients_.at(PlainModel::index(micro_batch))
        .view(owner_.compute_, owner_.activation(block_, micro_batch).shape());
  }
  bool wants_input_gradient() const override { return block_ > owner_.model_.lowest_trainable(); }
  void set_input_gradient(int micro_batch, ConstTensorView gradient) override {
    if (!wants_input_gradient()) return;
    owner_.gradients_.at(PlainModel::index(micro_batch)) = host_copy(gradient);
  }
  TensorView begin_rows(Parameter parameter, std::int64_t row_begin, std::int64_t rows) override {
    expects(tile_.empty(), "one tile is open at a time");
    tile_.assign(static_cast<std::size_t>(rows * parameter->shape[1]), 0.0f);
    tile_of_ = parameter;
    row_begin_ = row_begin;
    return {tile_.data(), Dtype::kF32, {rows, parameter->shape[1]}};
  }
  void finish_rows() override {
    owner_.parameters_.add_tile(tile_of_, row_begin_, tile_);
    tile_.clear();
  }
  float loss_scale() const override { return loss_scale_; }
  void add_losses(ConstTensorView losses) override {
    const auto* values = losses.as<float>();
    owner_.losses_.insert(owner_.losses_.end(), values, values + losses.numel());
  }

  void forward(const Block& block) {
    for (int i = 0; i < micro_batches(); ++i) {
      Graph graph = make_graph(false);
      const Value x = block_ == 0 ? Value() : graph.input(input(i), false);
      const Value y = block.forward(graph, x, batch(i));
      owner_.activations_.at(PlainModel::index(block_)).push_back(host_copy(y.view()));
    }
  }
  std::size_t peak() const { return workspace_.peak(); }

 private:
  PlainModel& owner_;
  int block_;
  float loss_scale_;
  bool wants_gradients_;
  Workspace workspace_{allocate_host(kWorkspaceBytes)};
  std::vector<float> tile_;
  Parameter tile_of_ = nullptr;
  std::int64_t row_begin_ = 0;
};

PlainModel::PlainModel(const Model& model, Dtype compute, const ParameterSource& source)
    : model_(model), compute_(compute), parameters_(model, compute, source) {}

TensorView PlainModel::activation(int block, int micro_batch) {
  const DeviceBatch& batch = device_batches_.at(index(micro_batch));
  return activations_.at(index(block))
      .at(index(micro_batch))
      .view(compute_, {batch.sequences * batch.tokens, model_.hidden_size()});
}

std::optional<std::uint64_t> PlainModel::randomness(int block) const {
  if (!seed_) return std::nullopt;
  return random_key(*seed_, {step_, static_cast<std::uint64_t>(block)});
}

std::vector<float> PlainModel::run(const Batch& batch, float loss_scale, bool gradients) {
  batch_ = batch;
  device_batches_.clear();
  std::int64_t first_sequence = batch_.first_sequence;
  for (const MicroBatch& part : batch_.micro_batches) {
    device_batches_.push_back(views_of(part, first_sequence));
    first_sequence += part.sequences;
  }
  const int blocks = model_.block_count();
  activations_.clear();
  activations_.resize(index(blocks));
  gradients_.clear();
  gradients_.resize(device_batches_.size());
  losses_.clear();
  parameters_.clear_gradients();
  forward_peaks_.assign(index(blocks), 0);
  backward_peaks_.assign(index(blocks), 0);
  for (int b = 0; b + 1 < blocks; ++b) {
    PlainVisit visit(*this, b, loss_scale, false);
    visit.forward(model_.block(b));
    forward_peaks_[index(b)] = visit.peak();
  }
  for (int b = blocks - 1; b >= (gradients ? model_.lowest_trainable() : blocks - 1); --b) {
    PlainVisit visit(*this, b, loss_scale, gradients);
    model_.block(b).backward(visit);
    backward_peaks_[index(b)] = visit.peak();
  }
  return losses_;
}

std::vector<float> PlainModel::logits(int micro_batch) {
  const int last = model_.block_count() - 1;
  const auto& head = dynamic_cast<const TransformerHead&>(model_.block(last));
  PlainVisit visit(*this, last, 0.0f, false);
  Graph graph = visit.make_graph(false);
  const Value logits = head.logits(graph, graph.input(visit.input(micro_batch), false));
  const float* values = logits.view().as<float>();
  return {values, values + logits.view().numel()};
}

}  // namespace strata::test
