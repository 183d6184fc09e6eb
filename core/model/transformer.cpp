#include "core/model/transformer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace strata {
namespace {

// Uses of random numbers in a block; the embedding has one.
constexpr std::uint64_t kAttentionUse = 0;
constexpr std::uint64_t kAttentionOutputUse = 1;
constexpr std::uint64_t kMlpOutputUse = 2;

/// Declares weight and, for layer norms, bias of a norm; applies whichever kind it is.
struct Norm {
  NormKind kind = NormKind::kRms;
  float epsilon = 0.0f;
  Parameter weight = nullptr;
  Parameter bias = nullptr;

  Value operator()(Graph& graph, const Value& x) const {
    return kind == NormKind::kRms ? graph.rms_norm(x, weight, epsilon)
                                  : graph.layer_norm(x, weight, bias, epsilon);
  }
};

constexpr ParameterOptions ones() {
  return {.initializer = Initializer{Initializer::Kind::kConstant, 1.0f}, .decay = false};
}
constexpr ParameterOptions zeros() {
  return {.initializer = Initializer{Initializer::Kind::kConstant, 0.0f}, .decay = false};
}

/// Looks up tokens, projects them to the hidden size where the table is narrower, and adds learned
/// positions where the model has them.
class Embedding final : public Block {
 public:
  Embedding(const ModelConfig& config, float dropout)
      : Block("embedding"), dropout_(dropout), position_offset_(config.position_offset) {
    const Initializer normal = Initializer::normal(config.initializer_range);
    const ParameterOptions table{.initializer = normal, .row_tiled = true};
    tokens_ = declare("tokens.weight", {config.vocab_size, config.table_width()}, table);
    if (config.projects_tokens()) {
      project_ = declare("project_in.weight", {config.hidden, config.table_width()},
                         {.initializer = normal});
    }
    if (config.positions == PositionKind::kLearned) {
      positions_ = declare("positions.weight",
                           {config.max_positions + config.position_offset, config.hidden}, table);
    }
  }

  Parameter tokens() const noexcept { return tokens_; }

  Value forward(Graph& graph, const Value&, const DeviceBatch& batch) const override {
    Value x = graph.embedding(batch.ids, tokens_);
    if (project_ != nullptr) x = graph.linear(x, project_, nullptr);
    if (positions_ != nullptr) {
      x = graph.add_embedding(std::move(x), batch.positions, positions_, position_offset_);
    }
    return graph.dropout(std::move(x), graph.make_dropout(dropout_, 0, batch.first_row()));
  }

  void backward(BackwardVisit& visit) const override {
    drop_gradients(visit);
    const auto output_gradient = [&visit](int i) { return visit.output_gradient(i); };
    if (project_ == nullptr) {
      table_backward(visit, tokens_, &DeviceBatch::ids, 0, output_gradient);
    } else {
      std::vector<Value> gradients;  // of what the token table gave, by micro-batch
      if (!tokens_->frozen || !project_->frozen) {
        for (int i = 0; i < visit.micro_batches(); ++i) gradients.push_back(unproject(visit, i));
      }
      table_backward(visit, tokens_, &DeviceBatch::ids, 0, [&gradients](int i) {
        return ConstTensorView(gradients[static_cast<std::size_t>(i)].view());
      });
    }
    if (positions_ != nullptr) {
      table_backward(visit, positions_, &DeviceBatch::positions, position_offset_, output_gradient);
    }
  }
  bool backward_needs_weights() const override { return project_ != nullptr; }
  Parameter looked_up() const override { return tokens_; }

 private:
  /// Turns the gradients of what forward() gave into those of what it dropped from.
  void drop_gradients(BackwardVisit& visit) const {
    const Graph graph = visit.make_graph(false);
    for (int i = 0; i < visit.micro_batches(); ++i) {
      const Dropout dropout = graph.make_dropout(dropout_, 0, visit.batch(i).first_row());
      if (dropout.rate == 0.0f) return;
      const TensorView gradient = visit.output_gradient(i);
      graph.ops().dropout(gradient, dropout, gradient, graph.stream());
    }
  }
  /// Adds to the projection's gradient. @return the gradient of the rows that were projected, if
  /// the table is trained
  Value unproject(BackwardVisit& visit, int micro_batch) const {
    Graph tape = visit.make_graph(true);
    const Value looked_up = [&] {
      Graph graph = visit.make_graph(false);
      return graph.embedding(visit.batch(micro_batch).ids, tokens_);
    }();
    const ConstTensorView gradient = visit.output_gradient(micro_batch);
    const Value x = tokens_->frozen ? looked_up : tape.watched(looked_up);
    const Value output = tape.linear(x, project_, nullptr);
    tape.backward(output, tape.constant(gradient));
    return tape.take_gradient(x);
  }

  /// @param offset from an index to its row of the table
  template <typename Gradient>
  static void table_backward(BackwardVisit& visit, Parameter table,
                             ConstTensorView DeviceBatch::*indices, std::int64_t offset,
                             const Gradient& gradient) {
    if (table->frozen) return;
    Graph graph = visit.make_graph(false);
    const std::int64_t count = table->shape[0];
    for (std::int64_t begin = 0; begin < count; begin += kRowTile) {
      const TensorView tile = visit.begin_rows(table, begin, std::min(kRowTile, count - begin));
      for (int i = 0; i < visit.micro_batches(); ++i) {
        graph.ops().embedding_backward(visit.batch(i).*indices, gradient(i), begin - offset, tile,
                                       graph.stream());
      }
      visit.finish_rows();
    }
  }

  Parameter tokens_ = nullptr;
  Parameter project_ = nullptr;
  Parameter positions_ = nullptr;
  float dropout_;
  std::int64_t position_offset_;
};

/// Attention and MLP, each added to its input, with a norm before (pre-norm) or after.
class Layer final : public Block {
 public:
  Layer(const ModelConfig& config, const DropoutRates& dropout,
        std::shared_ptr<const std::vector<float>> inverse_frequencies, int index)
      : Block(fmt::format("layers.{}", index)),
        attention_shape_{.heads = config.heads,
                         .kv_heads = config.kv_heads,
                         .head_size = config.head_size,
                         .scale = config.attention_scale(),
                         .window = config.window_of(index)},
        dropout_(dropout),
        activation_(config.activation),
        pre_norm_(config.pre_norm),
        rotary_magnitude_(static_cast<float>(config.rope_scaling.magnitude)),
        inverse_frequencies_(std::move(inverse_frequencies)) {
    const float deviation = config.initializer_range;
    const float residual = config.scale_residual_initializer
                               ? deviation / std::sqrt(2.0f * static_cast<float>(config.layers))
                               : deviation;
    const bool qkv_bias = config.query_key_value_bias;
    attention_norm_ = declare_norm("attention_norm", config);
    q_ = declare_product("attention.q", config.query_width(), config.hidden, qkv_bias, deviation);
    k_ = declare_product("attention.k", config.key_value_width(), config.hidden, qkv_bias,
                         deviation);
    v_ = declare_product("attention.v", config.key_value_width(), config.hidden, qkv_bias,
                         deviation);
    if (config.query_key_norm) {
      const auto head_norm = [&](const std::string& name) {
        return Norm{.epsilon = config.norm_epsilon,
                    .weight = declare(name + ".weight", {config.head_size}, ones())};
      };
      q_norm_ = head_norm("attention.q_norm");
      k_norm_ = head_norm("attention.k_norm");
    }
    o_ = declare_product("attention.o", config.hidden, config.query_width(), config.output_bias,
                         residual);
    mlp_norm_ = declare_norm("mlp_norm", config);
    const bool bias = config.mlp_bias;
    if (config.gated_mlp) {
      gate_ = declare_product("mlp.gate", config.intermediate, config.hidden, bias, deviation);
    }
    up_ = declare_product("mlp.up", config.intermediate, config.hidden, bias, deviation);
    down_ = declare_product("mlp.down", config.hidden, config.intermediate, bias, residual);
  }

  std::optional<KvLayer> kv_layer() const override {
    return KvLayer{attention_shape_.kv_heads, attention_shape_.head_size, attention_shape_.window};
  }
  Value forward(Graph& graph, const Value& x, const DeviceBatch& batch) const override {
    if (!pre_norm_) {
      const Value h = attention_norm_(graph, graph.add(x, attend(graph, x, batch)));
      return mlp_norm_(graph, graph.add(h, mlp(graph, h, batch)));
    }
    const Value h = graph.add(x, attend(graph, attention_norm_(graph, x), batch));
    return graph.add(h, mlp(graph, mlp_norm_(graph, h), batch));
  }

 private:
  struct Product {
    Parameter weight = nullptr;
    Parameter bias = nullptr;
    Value operator()(Graph& graph, const Value& x) const { return graph.linear(x, weight, bias); }
  };

  Norm declare_norm(const std::string& name, const ModelConfig& config) {
    Norm norm{.kind = config.norm, .epsilon = config.norm_epsilon};
    norm.weight = declare(name + ".weight", {config.hidden}, ones());
    if (config.norm_bias()) norm.bias = declare(name + ".bias", {config.hidden}, zeros());
    return norm;
  }
  Product declare_product(const std::string& name, std::int64_t out, std::int64_t in, bool bias,
                          float deviation) {
    Product product;
    product.weight =
        declare(name + ".weight", {out, in}, {.initializer = Initializer::normal(deviation)});
    if (bias) product.bias = declare(name + ".bias", {out}, zeros());
    return product;
  }

  Value attend(Graph& graph, const Value& n, const DeviceBatch& batch) const {
    AttentionShape shape = attention_shape_;
    shape.sequences = batch.sequences;
    shape.tokens = batch.tokens;
    shape.dropout = graph.make_dropout(dropout_.attention, kAttentionUse, batch.first_row());
    const Value q = rotate(graph, normed(graph, q_norm_, q_(graph, n)), batch);
    const Value k = rotate(graph, normed(graph, k_norm_, k_(graph, n)), batch);
    const Value v = v_(graph, n);
    return dropped(graph, o_(graph, graph.attention(shape, q, k, v, batch.first_key)),
                   kAttentionOutputUse, batch);
  }
  Value dropped(Graph& graph, Value x, std::uint64_t use, const DeviceBatch& batch) const {
    return graph.dropout(std::move(x),
                         graph.make_dropout(dropout_.residual, use, batch.first_row()));
  }
  static Value normed(Graph& graph, const Norm& norm, Value x) {
    return norm.weight == nullptr ? x : norm(graph, x);
  }
  Value rotate(Graph& graph, Value x, const DeviceBatch& batch) const {
    if (!inverse_frequencies_) return x;
    const std::int64_t size = attention_shape_.head_size;
    const ConstTensorView table(inverse_frequencies_->data(), Dtype::kF32, {size / 2});
    return graph.rotary(std::move(x), size, batch.positions, table, rotary_magnitude_);
  }
  Value mlp(Graph& graph, const Value& n, const DeviceBatch& batch) const {
    return dropped(graph, down_(graph, inner(graph, n)), kMlpOutputUse, batch);
  }
  Value inner(Graph& graph, const Value& n) const {
    if (gate_.weight == nullptr) return graph.activation(activation_, up_(graph, n));
    const Value gate = gate_(graph, n);
    return graph.gated_activation(activation_, gate, up_(graph, n));
  }

  AttentionShape attention_shape_;
  DropoutRates dropout_;
  Activation activation_;
  bool pre_norm_;
  float rotary_magnitude_;
  std::shared_ptr<const std::vector<float>>
      inverse_frequencies_;  // [D / 2], shared by all layers; null: none
  Norm attention_norm_;
  Product q_, k_, v_, o_;
  Norm q_norm_, k_norm_;  // without weights where the model has none
  Norm mlp_norm_;
  Product gate_, up_, down_;
};

}  // namespace

Model make_transformer(const ModelConfig& config, const DropoutRates& dropout) {
  std::shared_ptr<const std::vector<float>> frequencies;
  if (config.positions == PositionKind::kRotary) {
    frequencies = std::make_shared<const std::vector<float>>(inverse_frequencies(config));
  }
  std::vector<std::unique_ptr<Block>> blocks;
  auto embedding = std::make_unique<Embedding>(config, dropout.embedding);
  const Parameter table = config.tied ? embedding->tokens() : nullptr;
  blocks.push_back(std::move(embedding));
  for (int i = 0; i < static_cast<int>(config.layers); ++i) {
    blocks.push_back(std::make_unique<Layer>(config, dropout, frequencies, i));
  }
  const bool learned = config.positions == PositionKind::kLearned;
  return Model(std::move(blocks), std::make_unique<TransformerHead>(config, table), config.hidden,
               config.vocab_size, learned ? config.max_positions : 0);
}

}  // namespace strata
