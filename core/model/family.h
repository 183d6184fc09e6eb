#pragma once

// Internal to core/model and checkpoint: what config.json calls things, one row per family. Not
// installed.

#include <array>
#include <string_view>

#include "core/model/config.h"

namespace strata {

/// How one `model_type` spells a ModelConfig. A null key means that the family has no such key: the
/// value then follows from the others (head size = hidden / heads) or from the defaults of the row.
struct Family {
  const char* model_type;
  const char* causal_class;  ///< `architectures[0]` of a model with a head
  const char* base_class;    ///< the same without one

  struct Keys {
    const char* hidden;
    const char* layers;
    const char* heads;
    const char* kv_heads;
    const char* head_size;
    const char* intermediate;
    const char* positions;
    const char* epsilon;
    const char* activation;
    const char* attention_bias;  ///< q, k, v and o
    const char* mlp_bias;
    const char* scale_scores;
  } keys;

  NormKind norm;
  float default_epsilon;
  PositionKind position_kind;
  std::int64_t default_positions;
  bool gated_mlp;
  bool default_attention_bias;
  bool default_mlp_bias;
  bool default_tied;
  bool scale_residual_initializer;
};

inline constexpr std::array kFamilies{
    Family{
        .model_type = "gpt2",
        .causal_class = "GPT2LMHeadModel",
        .base_class = "GPT2Model",
        .keys = {.hidden = "n_embd",
                 .layers = "n_layer",
                 .heads = "n_head",
                 .kv_heads = nullptr,
                 .head_size = nullptr,
                 .intermediate = "n_inner",
                 .positions = "n_positions",
                 .epsilon = "layer_norm_epsilon",
                 .activation = "activation_function",
                 .attention_bias = nullptr,
                 .mlp_bias = nullptr,
                 .scale_scores = "scale_attn_weights"},
        .norm = NormKind::kLayer,
        .default_epsilon = 1e-5f,
        .position_kind = PositionKind::kLearned,
        .default_positions = 1024,
        .gated_mlp = false,
        .default_attention_bias = true,
        .default_mlp_bias = true,
        .default_tied = true,
        .scale_residual_initializer = true,
    },
    Family{
        .model_type = "llama",
        .causal_class = "LlamaForCausalLM",
        .base_class = "LlamaModel",
        .keys = {.hidden = "hidden_size",
                 .layers = "num_hidden_layers",
                 .heads = "num_attention_heads",
                 .kv_heads = "num_key_value_heads",
                 .head_size = "head_dim",
                 .intermediate = "intermediate_size",
                 .positions = "max_position_embeddings",
                 .epsilon = "rms_norm_eps",
                 .activation = "hidden_act",
                 .attention_bias = "attention_bias",
                 .mlp_bias = "mlp_bias",
                 .scale_scores = nullptr},
        .norm = NormKind::kRms,
        .default_epsilon = 1e-6f,
        .position_kind = PositionKind::kRotary,
        .default_positions = 2048,
        .gated_mlp = true,
        .default_attention_bias = false,
        .default_mlp_bias = false,
        .default_tied = false,
        .scale_residual_initializer = false,
    },
};

/// The row of `model_type`, or null.
constexpr const Family* find_family(std::string_view model_type) noexcept {
  for (const Family& family : kFamilies) {
    if (model_type == family.model_type) return &family;
  }
  return nullptr;
}

}  // namespace strata
