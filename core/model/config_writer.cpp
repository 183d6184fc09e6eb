#include <fmt/format.h>

#include <string>
#include <utility>

#include "core/model/config_keys.h"
#include "core/model/family.h"

namespace strata {
namespace {

using nlohmann::ordered_json;

void set(ordered_json& out, const char* key, ordered_json value) {
  if (key != nullptr) out[key] = std::move(value);
}

/// The shortest decimal that reads back as the same float: 1e-05, not 9.999999747378752e-06.
double decimal(float value) { return std::stod(fmt::format("{}", value)); }

ordered_json rope_scaling(const RotaryScaling& scaling) {
  ordered_json out;
  switch (scaling.kind) {
    case RotaryScaling::Kind::kNone:
      return nullptr;
    case RotaryScaling::Kind::kLinear:
      out["rope_type"] = "linear";
      break;
    case RotaryScaling::Kind::kLlama3:
      out["rope_type"] = "llama3";
      out["low_freq_factor"] = scaling.low_frequency_factor;
      out["high_freq_factor"] = scaling.high_frequency_factor;
      out["original_max_position_embeddings"] = scaling.original_positions;
      break;
    case RotaryScaling::Kind::kYarn:
      out["rope_type"] = "yarn";
      out["beta_fast"] = scaling.beta_fast;
      out["beta_slow"] = scaling.beta_slow;
      out["truncate"] = scaling.whole_dimensions;
      out["attention_factor"] = scaling.magnitude;
      out["original_max_position_embeddings"] = scaling.original_positions;
      break;
  }
  out["factor"] = scaling.factor;
  return out;
}

void write_dimensions(const ModelConfig& config, const Family& family, ordered_json& out) {
  set(out, "vocab_size", config.vocab_size);
  set(out, family.keys.hidden, config.hidden);
  set(out, family.keys.layers, config.layers);
  set(out, family.keys.heads, config.heads);
  set(out, family.keys.kv_heads, config.kv_heads);
  set(out, family.keys.head_size, config.head_size);
  set(out, family.keys.intermediate, config.intermediate);
  set(out, family.keys.positions, config.max_positions);
  set(out, family.keys.token_width, config.table_width());
}

void write_window(const ModelConfig& config, const Family& family, ordered_json& out) {
  const bool windowed = config.window > 0;
  set(out, family.keys.window, windowed ? ordered_json(config.window) : ordered_json());
  set(out, family.keys.use_window, windowed);
  set(out, family.keys.first_windowed_layer,
      windowed ? config.first_windowed_layer : config.layers);
}

void write_dropout(const ModelConfig& config, const Family& family, ordered_json& out) {
  set(out, family.keys.embedding_dropout, decimal(config.dropout.embedding));
  set(out, family.keys.residual_dropout, decimal(config.dropout.residual));
  set(out, family.keys.attention_dropout, decimal(config.dropout.attention));
  set(out, family.keys.layer_dropout, decimal(config.layer_dropout));
}

}  // namespace

std::string to_json(const ModelConfig& config) {
  const Family* family = find_family(config.family);
  expects(family != nullptr, "the config has no family that a config.json can name");
  ordered_json out;
  out["architectures"] = {family->causal_class};
  out["model_type"] = family->model_type;
  write_dimensions(config, *family, out);
  set(out, family->keys.epsilon, decimal(config.norm_epsilon));
  set(out, family->keys.pre_norm, config.pre_norm);
  set(out, family->keys.no_final_norm, config.pre_norm && !config.final_norm);
  write_window(config, *family, out);
  if (config.positions == PositionKind::kRotary) {
    out["rope_theta"] = config.rope_theta;
    out["rope_scaling"] = rope_scaling(config.rope_scaling);
  }
  set(out, family->keys.activation, name_of(config.activation, kActivations));
  set(out, family->keys.scale_scores, config.scale_scores);
  set(out, family->keys.attention_bias, config.query_key_value_bias);
  set(out, family->keys.mlp_bias, config.mlp_bias);
  out["tie_word_embeddings"] = config.tied;
  write_dropout(config, *family, out);
  set(out, family->keys.initializer, decimal(config.initializer_range));
  out["torch_dtype"] = name_of(config.weight_dtype, kWeightDtypes);
  out["bos_token_id"] = nullptr;
  if (config.begin_token >= 0) out["bos_token_id"] = config.begin_token;
  out["eos_token_id"] = nullptr;
  if (config.end_tokens.size() == 1) out["eos_token_id"] = config.end_tokens.front();
  if (config.end_tokens.size() > 1) out["eos_token_id"] = config.end_tokens;
  return out.dump(2) + "\n";
}

}  // namespace strata
