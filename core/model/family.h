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
  const char* model_type = nullptr;
  const char* causal_class = nullptr;  ///< `architectures[0]` of a model with a head
  const char* base_class = nullptr;    ///< the same without one

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
    const char* embedding_dropout = nullptr;
    const char* residual_dropout = nullptr;
    const char* attention_dropout = "attention_dropout";
    const char* layer_dropout = nullptr;
  };
  Keys keys = {};

  NormKind norm = NormKind::kRms;
  float default_epsilon = 1e-6f;
  PositionKind position_kind = PositionKind::kRotary;
  std::int64_t position_offset = 0;
  std::int64_t default_positions = 0;
  std::int64_t default_head_size = 0;  ///< 0: hidden / heads
  std::int64_t default_kv_heads = 0;   ///< 0: as many as heads
  std::int64_t default_window = 0;     ///< where the key is absent; null means none
  std::int64_t default_first_windowed_layer = 0;
  Activation default_activation = Activation::kSilu;
  bool gated_mlp = false;
  bool query_key_norm = false;
  bool default_query_key_value_bias = false;
  bool default_output_bias = false;
  bool default_mlp_bias = false;
  bool default_tied = false;
  bool scale_residual_initializer = false;
  DropoutRates default_dropout = {};
};

namespace families {

/// What Llama and those that followed it have in common.
constexpr Family like_llama(const char* model_type, const char* causal_class,
                            const char* base_class) {
  return {.model_type = model_type,
          .causal_class = causal_class,
          .base_class = base_class,
          .keys = {.hidden = "hidden_size",
                   .layers = "num_hidden_layers",
                   .heads = "num_attention_heads",
                   .kv_heads = "num_key_value_heads",
                   .head_size = "head_dim",
                   .intermediate = "intermediate_size",
                   .positions = "max_position_embeddings",
                   .epsilon = "rms_norm_eps",
                   .activation = "hidden_act"},
          .norm = NormKind::kRms,
          .default_epsilon = 1e-6f,
          .position_kind = PositionKind::kRotary,
          .default_activation = Activation::kSilu,
          .gated_mlp = true};
}

/// Layer norms, learned positions, biases everywhere, tied.
constexpr Family like_gpt2(const char* model_type, const char* causal_class,
                           const char* base_class) {
  return {.model_type = model_type,
          .causal_class = causal_class,
          .base_class = base_class,
          .norm = NormKind::kLayer,
          .default_epsilon = 1e-5f,
          .position_kind = PositionKind::kLearned,
          .default_query_key_value_bias = true,
          .default_output_bias = true,
          .default_mlp_bias = true,
          .default_tied = true};
}

constexpr Family gpt2() {
  Family family = like_gpt2("gpt2", "GPT2LMHeadModel", "GPT2Model");
  family.keys = {.hidden = "n_embd",
                 .layers = "n_layer",
                 .heads = "n_head",
                 .intermediate = "n_inner",
                 .positions = "n_positions",
                 .epsilon = "layer_norm_epsilon",
                 .activation = "activation_function",
                 .scale_scores = "scale_attn_weights",
                 .embedding_dropout = "embd_pdrop",
                 .residual_dropout = "resid_pdrop",
                 .attention_dropout = "attn_pdrop"};
  family.default_positions = 1024;
  family.default_activation = Activation::kGeluNew;
  family.scale_residual_initializer = true;
  family.default_dropout = {.embedding = 0.1f, .residual = 0.1f, .attention = 0.1f};
  return family;
}

constexpr Family opt() {
  Family family = like_gpt2("opt", "OPTForCausalLM", "OPTModel");
  family.keys = {.hidden = "hidden_size",
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
                 .no_final_norm = "_remove_final_layer_norm",
                 .residual_dropout = "dropout",
                 .layer_dropout = "layerdrop"};
  family.position_offset = 2;
  family.default_positions = 2048;
  family.default_activation = Activation::kRelu;
  family.default_dropout.residual = 0.1f;
  return family;
}

constexpr Family llama() {
  Family family = like_llama("llama", "LlamaForCausalLM", "LlamaModel");
  family.keys.attention_bias = "attention_bias";
  family.keys.mlp_bias = "mlp_bias";
  family.default_positions = 2048;
  return family;
}

constexpr Family mistral() {
  Family family = like_llama("mistral", "MistralForCausalLM", "MistralModel");
  family.keys.window = "sliding_window";
  family.default_positions = 131072;
  family.default_kv_heads = 8;
  family.default_window = 4096;
  return family;
}

constexpr Family like_qwen(Family family) {
  family.keys.window = "sliding_window";
  family.keys.use_window = "use_sliding_window";
  family.keys.first_windowed_layer = "max_window_layers";
  family.default_positions = 32768;
  family.default_kv_heads = 32;
  family.default_window = 4096;
  family.default_first_windowed_layer = 28;
  return family;
}

constexpr Family qwen2() {
  Family family = like_qwen(like_llama("qwen2", "Qwen2ForCausalLM", "Qwen2Model"));
  family.default_query_key_value_bias = true;
  return family;
}

constexpr Family qwen3() {
  Family family = like_qwen(like_llama("qwen3", "Qwen3ForCausalLM", "Qwen3Model"));
  family.keys.attention_bias = "attention_bias";
  family.default_head_size = 128;
  family.query_key_norm = true;
  return family;
}

}  // namespace families

inline constexpr std::array kFamilies{families::gpt2(),    families::llama(), families::opt(),
                                      families::mistral(), families::qwen2(), families::qwen3()};

/// The row of `model_type`, or null.
constexpr const Family* find_family(std::string_view model_type) noexcept {
  for (const Family& family : kFamilies) {
    if (model_type == family.model_type) return &family;
  }
  return nullptr;
}

}  // namespace strata
