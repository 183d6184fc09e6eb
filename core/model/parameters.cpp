#include "core/model/parameters.h"

#include <fmt/format.h>

namespace strata {
namespace {

class ParameterList {
 public:
  void add(std::string name, Shape shape, ParameterRole role) {
    list_.push_back({std::move(name), shape, role, block_});
  }
  void norm(const std::string& name, std::int64_t width, bool bias) {
    add(name + ".weight", {width}, ParameterRole::kNormWeight);
    if (bias) add(name + ".bias", {width}, ParameterRole::kBias);
  }
  void linear(const std::string& name, std::int64_t out, std::int64_t in, bool bias,
              ParameterRole role = ParameterRole::kMatrix) {
    add(name + ".weight", {out, in}, role);
    if (bias) add(name + ".bias", {out}, ParameterRole::kBias);
  }
  void next_block() { ++block_; }
  std::vector<Parameter> take() { return std::move(list_); }

 private:
  std::vector<Parameter> list_;
  int block_ = 0;
};

void add_layer(ParameterList& list, const ModelConfig& config, std::int64_t layer) {
  const std::string prefix = fmt::format("layers.{}.", layer);
  const std::int64_t hidden = config.hidden;
  const bool bias = config.query_key_value_bias;
  list.norm(prefix + "attention_norm", hidden, config.norm_bias());
  list.linear(prefix + "attention.q", config.query_width(), hidden, bias);
  list.linear(prefix + "attention.k", config.key_value_width(), hidden, bias);
  list.linear(prefix + "attention.v", config.key_value_width(), hidden, bias);
  list.linear(prefix + "attention.o", hidden, config.query_width(), config.output_bias,
              ParameterRole::kResidualProjection);
  list.norm(prefix + "mlp_norm", hidden, config.norm_bias());
  if (config.gated_mlp) {
    list.linear(prefix + "mlp.gate", config.intermediate, hidden, config.mlp_bias);
  }
  list.linear(prefix + "mlp.up", config.intermediate, hidden, config.mlp_bias);
  list.linear(prefix + "mlp.down", hidden, config.intermediate, config.mlp_bias,
              ParameterRole::kResidualProjection);
}

}  // namespace

std::vector<Parameter> parameters(const ModelConfig& config) {
  ParameterList list;
  list.add("embedding.tokens.weight", {config.vocab_size, config.hidden}, ParameterRole::kTable);
  if (config.positions == PositionKind::kLearned) {
    list.add("embedding.positions.weight", {config.max_positions, config.hidden},
             ParameterRole::kTable);
  }
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    list.next_block();
    add_layer(list, config, layer);
  }
  list.next_block();
  list.norm("head.norm", config.hidden, config.norm_bias());
  if (!config.tied) {
    list.add("head.weight", {config.vocab_size, config.hidden}, ParameterRole::kMatrix);
  }
  return list.take();
}

std::int64_t parameter_count(const ModelConfig& config) {
  std::int64_t total = 0;
  for (const Parameter& parameter : parameters(config)) total += parameter.shape.numel();
  return total;
}

}  // namespace strata
