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
    const char* hidden = nullptr;
    const char* layers = nullptr;
    const char* heads = nullptr;
    const char* kv_heads = nullptr;
    const char* head_size = nullptr;
    const char* intermediate = nullptr;
    const char* positions = nullptr;
    const char* epsilon = nullptr;
    const char* activation = nullptr;
    const char* attention_bias = nullptr;  ///< q, k, v and o
    const char* mlp_bias = nullptr;
    const char* scale_scores = nullptr;
    const char* token_width = nullptr;
    const char* initializer = "initializer_range";
    const char* pre_norm = nullptr;
    const char* no_final_norm = nullptr;
    const char* window = nullptr;
    const char* use_window = nullptr;  ///< false unless it says true: the window is not used
    const char* first_windowed_layer = nullptr;  ///< layers before it have no window
  } keys;

  NormKind norm;
  float default_epsilon;
  PositionKind position_kind;
  std::int64_t position_offset = 0;
  std::int64_t default_positions;
  std::int64_t default_head_size = 0;  ///< 0: hidden / heads
  std::int64_t default_kv_heads = 0;   ///< 0: as many as heads
  std::int64_t default_window = 0;     ///< where the key is absent; null means none
  std::int64_t default_first_windowed_layer = 0;
  Activation default_activation;
  bool gated_mlp;
  bool query_key_norm = false;
  bool default_query_key_value_bias;
  bool default_output_bias;
  bool default_mlp_bias;
  bool default_tied;
  bool scale_residual_initializer = false;
};

inline constexpr std::array kFamilies{
    Family{
        .model_type = "gpt2",
        .causal_class = "GPT2LMHeadModel",
        .base_class = "GPT2Model",
        .keys = {.hidden = "n_embd",
                 .layers = "n_layer",
                 .heads = "n_head",
                 .intermediate = "n_inner",
                 .positions = "n_positions",
                 .epsilon = "layer_norm_epsilon",
                 .activation = "activation_function",
                 .scale_scores = "scale_attn_weights"},
        .norm = NormKind::kLayer,
        .default_epsilon = 1e-5f,
        .position_kind = PositionKind::kLearned,
        .default_positions = 1024,
        .default_activation = Activation::kGeluNew,
        .gated_mlp = false,
        .default_query_key_value_bias = true,
        .default_output_bias = true,
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
                 .mlp_bias = "mlp_bias"},
        .norm = NormKind::kRms,
        .default_epsilon = 1e-6f,
        .position_kind = PositionKind::kRotary,
        .default_positions = 2048,
        .default_activation = Activation::kSilu,
        .gated_mlp = true,
        .default_query_key_value_bias = false,
        .default_output_bias = false,
        .default_mlp_bias = false,
        .default_tied = false,
    },
    Family{
        .model_type = "opt",
        .causal_class = "OPTForCausalLM",
        .base_class = "OPTModel",
        .keys = {.hidden = "hidden_size",
                 .layers = "num_hidden_layers",
                 .heads = "num_attention_heads",
                 .intermediate = "ffn_dim",
                 .positions = "max_position_embeddings",
                 .activation = "activation_function",
                 .attention_bias = "enable_bias",
                 .mlp_bias = "enable_bias",
                 .token_width = "word_embed_proj_dim",
                 .initializer = "init_std",
                 .pre_norm = "do_layer_norm_before",
                 .no_final_norm = "_remove_final_layer_norm"},
        .norm = NormKind::kLayer,
        .default_epsilon = 1e-5f,
        .position_kind = PositionKind::kLearned,
        .position_offset = 2,
        .default_positions = 2048,
        .default_activation = Activation::kRelu,
        .gated_mlp = false,
        .default_query_key_value_bias = true,
        .default_output_bias = true,
        .default_mlp_bias = true,
        .default_tied = true,
    },
    Family{
        .model_type = "mistral",
        .causal_class = "MistralForCausalLM",
        .base_class = "MistralModel",
        .keys = {.hidden = "hidden_size",
                 .layers = "num_hidden_layers",
                 .heads = "num_attention_heads",
                 .kv_heads = "num_key_value_heads",
                 .head_size = "head_dim",
                 .intermediate = "intermediate_size",
                 .positions = "max_position_embeddings",
                 .epsilon = "rms_norm_eps",
                 .activation = "hidden_act",
                 .window = "sliding_window"},
        .norm = NormKind::kRms,
        .default_epsilon = 1e-6f,
        .position_kind = PositionKind::kRotary,
        .default_positions = 131072,
        .default_kv_heads = 8,
        .default_window = 4096,
        .default_activation = Activation::kSilu,
        .gated_mlp = true,
        .default_query_key_value_bias = false,
        .default_output_bias = false,
        .default_mlp_bias = false,
        .default_tied = false,
    },
    Family{
        .model_type = "qwen2",
        .causal_class = "Qwen2ForCausalLM",
        .base_class = "Qwen2Model",
        .keys = {.hidden = "hidden_size",
                 .layers = "num_hidden_layers",
                 .heads = "num_attention_heads",
                 .kv_heads = "num_key_value_heads",
                 .head_size = "head_dim",
                 .intermediate = "intermediate_size",
                 .positions = "max_position_embeddings",
                 .epsilon = "rms_norm_eps",
                 .activation = "hidden_act",
                 .window = "sliding_window",
                 .use_window = "use_sliding_window",
                 .first_windowed_layer = "max_window_layers"},
        .norm = NormKind::kRms,
        .default_epsilon = 1e-6f,
        .position_kind = PositionKind::kRotary,
        .default_positions = 32768,
        .default_kv_heads = 32,
        .default_window = 4096,
        .default_first_windowed_layer = 28,
        .default_activation = Activation::kSilu,
        .gated_mlp = true,
        .default_query_key_value_bias = true,
        .default_output_bias = false,
        .default_mlp_bias = false,
        .default_tied = false,
    },
    Family{
        .model_type = "qwen3",
        .causal_class = "Qwen3ForCausalLM",
        .base_class = "Qwen3Model",
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
                 .window = "sliding_window",
                 .use_window = "use_sliding_window",
                 .first_windowed_layer = "max_window_layers"},
        .norm = NormKind::kRms,
        .default_epsilon = 1e-6f,
        .position_kind = PositionKind::kRotary,
        .default_positions = 32768,
        .default_head_size = 128,
        .default_kv_heads = 32,
        .default_window = 4096,
        .default_first_windowed_layer = 28,
        .default_activation = Activation::kSilu,
        .gated_mlp = true,
        .query_key_norm = true,
        .default_query_key_value_bias = false,
        .default_output_bias = false,
        .default_mlp_bias = false,
        .default_tied = false,
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
