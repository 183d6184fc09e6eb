#include "core/model/block.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace strata {

Parameter Block::declare(const std::string& name, Shape shape, const ParameterOptions& options) {
  auto spec = std::make_unique<ParameterSpec>();
  spec->name = name_ + "." + name;
  spec->shape = shape;
  spec->initializer = options.initializer;
  spec->decay = options.decay;
  spec->frozen = options.frozen;
  spec->row_tiled = options.row_tiled;
  expects(!spec->row_tiled || shape.rank() == 2, "only a table [rows, columns] can be row-tiled");
  parameters_.push_back(std::move(spec));
  return parameters_.back().get();
}

Parameter Block::borrow(Parameter parameter) {
  borrowed_.push_back(parameter);
  return parameter;
}

bool Block::trainable() const noexcept {
  return std::ranges::any_of(parameters_, [](const auto& spec) { return !spec->frozen; });
}

void Block::backward(BackwardVisit& visit) const {
  for (int i = 0; i < visit.micro_batches(); ++i) {
    Graph graph = visit.make_graph(true);
    const TensorView activation = visit.input(i);
    const Value input =
        activation.empty() ? Value() : graph.input(activation, visit.wants_input_gradient());
    const Value output = forward(graph, input, visit.batch(i));
    if (output.requires_gradient()) {
      graph.backward(output, graph.constant(visit.output_gradient(i)));
    }
    if (input) visit.set_input_gradient(i, graph.take_gradient(input).view());
  }
}

void Loss::backward(BackwardVisit& visit) const {
  const bool training = visit.wants_gradients();
  for (int i = 0; i < visit.micro_batches(); ++i) {
    Graph graph = visit.make_graph(training);
    graph.set_loss_scale(visit.loss_scale());
    const Value input = graph.input(visit.input(i), visit.wants_input_gradient());
    const Value losses = forward(graph, input, visit.batch(i));
    visit.add_losses(losses.view());
    if (!training) continue;
    graph.backward_loss(losses);
    visit.set_input_gradient(i, graph.take_gradient(input).view());
  }
}

Value Loss::logits(Graph&, const Value&) const {
  throw Error(fmt::format("{} has no logits: override logits() to generate with it", name()));
}

Model::Model(std::vector<std::unique_ptr<Block>> blocks, std::unique_ptr<Loss> loss,
             std::int64_t hidden_size, std::int64_t vocabulary_size, std::int64_t position_count)
    : blocks_(std::move(blocks)),
      loss_(loss.get()),
      hidden_size_(hidden_size),
      vocabulary_size_(vocabulary_size),
      position_count_(position_count) {
  blocks_.push_back(std::move(loss));
  std::set<std::string> names;
  for (int index = 0; index < block_count(); ++index) {
    Block& block = *blocks_[static_cast<std::size_t>(index)];
    for (const auto& spec : block.parameters_) {
      spec->block = index;
      if (!names.insert(spec->name).second) {
        throw Error(fmt::format("two parameters of the model are named {}", spec->name));
      }
    }
    for (const Parameter parameter : block.borrowed_) {
      if (parameter->block < 0 || parameter->block >= index) {
        throw Error(fmt::format("block {} borrows {}, which no earlier block owns", block.name(),
                                parameter->name));
      }
    }
  }
}

std::int64_t Model::parameter_count() const noexcept {
  std::int64_t count = 0;
  for (const auto& block : blocks_) {
    for (const auto& spec : block->parameters()) count += spec->shape.numel();
  }
  return count;
}

void Model::freeze_all() noexcept {
  for (const auto& block : blocks_) {
    for (const auto& spec : block->parameters_) spec->frozen = true;
  }
}

void Model::freeze(const std::string& name) {
  for (const auto& block : blocks_) {
    for (const auto& spec : block->parameters_) {
      if (spec->name != name) continue;
      spec->frozen = true;
      return;
    }
  }
  throw Error(fmt::format("the model has no parameter named {}", name));
}

std::int64_t Model::trainable_count() const noexcept {
  std::int64_t count = 0;
  for (const auto& block : blocks_) {
    for (const auto& spec : block->parameters()) count += spec->frozen ? 0 : spec->shape.numel();
  }
  return count;
}

int Model::lowest_trainable() const noexcept {
  const auto found = std::ranges::find_if(blocks_, [](const auto& b) { return b->trainable(); });
  return static_cast<int>(found - blocks_.begin());
}

Parameter Model::find(const std::string& name) const noexcept {
  for (const auto& block : blocks_) {
    for (const auto& spec : block->parameters()) {
      if (spec->name == name) return spec.get();
    }
  }
  return nullptr;
}

}  // namespace strata
