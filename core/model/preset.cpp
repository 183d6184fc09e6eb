#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

#include "core/model/config.h"

namespace strata {
namespace {

struct Gpt2Row {
  const char* name;
  std::int64_t layers, hidden, heads, positions;
  bool tied;
};

/// vocabulary 50257; gpt-162m, gpt-406m and gpt-1.3b keep a head of their own.
constexpr std::array kGpt2{
    Gpt2Row{"gpt2-124m", 12, 768, 12, 1024, true},    // 124.4M parameters
    Gpt2Row{"gpt-162m", 12, 768, 12, 256, false},     // 162.4M
    Gpt2Row{"gpt-406m", 24, 1024, 16, 1024, false},   // 406.3M
    Gpt2Row{"gpt-1.3b", 24, 2048, 32, 1024, false},   // 1.42B with its own head, 1.31B without
    Gpt2Row{"gpt-1t", 128, 25600, 160, 2048, false},  // 1.009e12
};

struct LlamaRow {
  const char* name;
  std::int64_t vocab, layers, hidden, intermediate, heads, kv_heads;
  double scaling;  ///< factor of llama3 scaling; 0: none, and 2048 positions
  bool tied;
  std::int32_t begin_token, end_token;
};

constexpr std::array kLlama{
    // 257 = the bytes and an end-of-document token; 26.0M parameters
    LlamaRow{"llama-26m", 257, 8, 512, 1408, 8, 8, 0.0, false, -1, 256},
    LlamaRow{"llama-1b", 128256, 16, 2048, 8192, 32, 8, 32.0, true, 128000, 128001},
    LlamaRow{"llama-8b", 128256, 32, 4096, 14336, 32, 8, 8.0, false, 128000, 128001},
    LlamaRow{"llama-70b", 128256, 80, 8192, 28672, 64, 8, 8.0, false, 128000, 128001},
};

ModelConfig make_gpt2(const Gpt2Row& row) {
  ModelConfig config;
  config.family = "gpt2";
  config.vocab_size = 50257;
  config.hidden = row.hidden;
  config.layers = row.layers;
  config.heads = config.kv_heads = row.heads;
  config.head_size = row.hidden / row.heads;
  config.intermediate = 4 * row.hidden;
  config.max_positions = row.positions;
  config.norm = NormKind::kLayer;
  config.positions = PositionKind::kLearned;
  config.activation = Activation::kGeluNew;
  config.gated_mlp = false;
  config.query_key_value_bias = config.output_bias = config.mlp_bias = true;
  config.tied = row.tied;
  config.scale_residual_initializer = true;
  config.end_tokens = {50256};
  config.begin_token = 50256;
  return config;
}

ModelConfig make_llama(const LlamaRow& row) {
  ModelConfig config;
  config.family = "llama";
  config.vocab_size = row.vocab;
  config.hidden = row.hidden;
  config.layers = row.layers;
  config.heads = row.heads;
  config.kv_heads = row.kv_heads;
  config.head_size = row.hidden / row.heads;
  config.intermediate = row.intermediate;
  config.tied = row.tied;
  config.end_tokens = {row.end_token};
  config.begin_token = row.begin_token;
  config.max_positions = 2048;
  if (row.scaling > 0.0) {
    config.max_positions = 131072;
    config.rope_theta = 500000.0;
    config.rope_scaling = {RotaryScaling::Kind::kLlama3, row.scaling, 1.0, 4.0, 8192};
    config.weight_dtype = Dtype::kBf16;
  }
  return config;
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const LlamaRow& row : kLlama) names.emplace_back(row.name);
  for (const Gpt2Row& row : kGpt2) names.emplace_back(row.name);
  return names;
}

ModelConfig preset(std::string_view name) {
  for (const Gpt2Row& row : kGpt2) {
    if (name == row.name) return make_gpt2(row);
  }
  for (const LlamaRow& row : kLlama) {
    if (name == row.name) return make_llama(row);
  }
  throw UsageError(fmt::format("there is no preset \"{}\"; presets are {}", name,
                               fmt::join(preset_names(), ", ")));
}

}  // namespace strata
