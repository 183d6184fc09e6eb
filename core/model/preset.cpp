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

/// Positions 2048, vocabulary 50272, tied.
struct OptRow {
  const char* name;
  std::int64_t layers, hidden, heads;
};

constexpr std::array kOpt{
    OptRow{"opt-125m", 12, 768, 12},  OptRow{"opt-1.3b", 24, 2048, 32},
    OptRow{"opt-2.7b", 32, 2560, 32}, OptRow{"opt-6.7b", 32, 4096, 32},
    OptRow{"opt-13b", 40, 5120, 40},  OptRow{"opt-30b", 48, 7168, 56},
    OptRow{"opt-66b", 64, 9216, 72},  OptRow{"opt-175b", 96, 12288, 96},
};

/// RMS norms, rotary positions, gated MLP.
struct LlamaRow {
  const char* name;
  const char* family;
  std::int64_t vocab, layers, hidden, intermediate, heads, kv_heads, positions;
  double theta;
  double scaling;  ///< factor of llama3 scaling; 0: none
  bool tied;
  std::int32_t begin_token, end_token;
  Dtype dtype = Dtype::kBf16;
};

constexpr LlamaRow llama_3(const char* name, std::int64_t layers, std::int64_t hidden,
                           std::int64_t intermediate, std::int64_t heads, double scaling,
                           bool tied) {
  return {name, "llama", 128256, layers,  hidden, intermediate, heads,
          8,    131072,  5e5,    scaling, tied,   128000,       128001};
}
constexpr LlamaRow qwen_25(const char* name, std::int64_t vocab, std::int64_t layers,
                           std::int64_t hidden, std::int64_t intermediate, std::int64_t heads,
                           std::int64_t kv_heads, bool tied) {
  return {name,     "qwen2", vocab, layers, hidden, intermediate, heads,
          kv_heads, 32768,   1e6,   0.0,    tied,   -1,           151643};
}

constexpr std::array kLlama{
    // 257 = the bytes and an end-of-document token; 26.0M parameters
    LlamaRow{"llama-26m", "llama", 257, 8, 512, 1408, 8, 8, 2048, 1e4, 0.0, false, -1, 256,
             Dtype::kF32},
    llama_3("llama-1b", 16, 2048, 8192, 32, 32.0, true),
    llama_3("llama-8b", 32, 4096, 14336, 32, 8.0, false),
    llama_3("llama-70b", 80, 8192, 28672, 64, 8.0, false),
    llama_3("llama-3.2-1b", 16, 2048, 8192, 32, 32.0, true),
    llama_3("llama-3.1-8b", 32, 4096, 14336, 32, 8.0, false),
    llama_3("llama-3.1-70b", 80, 8192, 28672, 64, 8.0, false),
    LlamaRow{"mistral-7b", "mistral", 32768, 32, 4096, 14336, 32, 8, 32768, 1e6, 0.0, false, 1, 2},
    qwen_25("qwen2.5-0.5b", 151936, 24, 896, 4864, 14, 2, true),
    qwen_25("qwen2.5-3b", 151936, 36, 2048, 11008, 16, 2, true),
    qwen_25("qwen2.5-7b", 152064, 28, 3584, 18944, 28, 4, false),
};

/// What GPT-2 and OPT have in common.
template <typename Row>
ModelConfig make_with_layer_norms(const Row& row) {
  ModelConfig config;
  config.hidden = row.hidden;
  config.layers = row.layers;
  config.heads = config.kv_heads = row.heads;
  config.head_size = row.hidden / row.heads;
  config.intermediate = 4 * row.hidden;
  config.norm = NormKind::kLayer;
  config.positions = PositionKind::kLearned;
  config.gated_mlp = false;
  config.query_key_value_bias = config.output_bias = config.mlp_bias = true;
  return config;
}

ModelConfig make_gpt2(const Gpt2Row& row) {
  ModelConfig config = make_with_layer_norms(row);
  config.family = "gpt2";
  config.vocab_size = 50257;
  config.max_positions = row.positions;
  config.activation = Activation::kGeluNew;
  config.tied = row.tied;
  config.scale_residual_initializer = true;
  config.dropout = {.embedding = 0.1f, .residual = 0.1f, .attention = 0.1f};
  config.end_tokens = {50256};
  config.begin_token = 50256;
  return config;
}

ModelConfig make_opt(const OptRow& row) {
  ModelConfig config = make_with_layer_norms(row);
  config.family = "opt";
  config.vocab_size = 50272;
  config.max_positions = 2048;
  config.position_offset = 2;
  config.activation = Activation::kRelu;
  config.tied = true;
  config.dropout.residual = 0.1f;
  config.weight_dtype = Dtype::kBf16;
  config.end_tokens = {2};
  config.begin_token = 2;
  return config;
}

ModelConfig make_llama(const LlamaRow& row) {
  ModelConfig config;
  config.family = row.family;
  config.vocab_size = row.vocab;
  config.hidden = row.hidden;
  config.layers = row.layers;
  config.heads = row.heads;
  config.kv_heads = row.kv_heads;
  config.head_size = row.hidden / row.heads;
  config.intermediate = row.intermediate;
  config.max_positions = row.positions;
  config.rope_theta = row.theta;
  if (row.scaling > 0.0) {
    config.rope_scaling = {
        .kind = RotaryScaling::Kind::kLlama3, .factor = row.scaling, .original_positions = 8192};
  }
  const bool qwen = config.family == "qwen2";
  config.norm_epsilon = qwen ? 1e-6f : 1e-5f;
  config.query_key_value_bias = qwen;
  config.tied = row.tied;
  config.weight_dtype = row.dtype;
  config.begin_token = row.begin_token;
  config.end_tokens = {row.end_token};
  return config;
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const LlamaRow& row : kLlama) names.emplace_back(row.name);
  for (const Gpt2Row& row : kGpt2) names.emplace_back(row.name);
  for (const OptRow& row : kOpt) names.emplace_back(row.name);
  return names;
}

ModelConfig preset(std::string_view name) {
  for (const Gpt2Row& row : kGpt2) {
    if (name == row.name) return make_gpt2(row);
  }
  for (const OptRow& row : kOpt) {
    if (name == row.name) return make_opt(row);
  }
  for (const LlamaRow& row : kLlama) {
    if (name == row.name) return make_llama(row);
  }
  throw UsageError(fmt::format("there is no preset \"{}\"; presets are {}", name,
                               fmt::join(preset_names(), ", ")));
}

}  // namespace strata
