#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/model/dropout.h"
#include "core/ops.h"

namespace strata {

enum class NormKind : std::uint8_t { kLayer, kRms };
enum class PositionKind : std::uint8_t { kLearned, kRotary };

/// How rotary frequencies f are stretched for contexts longer than those of pretraining.
struct RotaryScaling {
  enum class Kind : std::uint8_t { kNone, kLinear, kLlama3, kYarn };

  Kind kind = Kind::kNone;
  double factor = 1.0;  ///< kLinear: f / factor. Others: the same for the long wavelengths only
  double low_frequency_factor = 1.0;    ///< kLlama3: wavelengths over original / low are divided
  double high_frequency_factor = 4.0;   ///< kLlama3: wavelengths under original / high are kept
  std::int64_t original_positions = 0;  ///< kLlama3, kYarn: context length of pretraining
  // kYarn (arXiv 2309.00071): a pair of dimensions that turns `beta_fast` times or more within
  // original_positions is kept, one that turns `beta_slow` times or fewer is divided.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool whole_dimensions = true;  ///< the border dimensions are rounded outwards
  double magnitude = 1.0;        ///< kYarn: cos and sin are multiplied by it

  bool operator==(const RotaryScaling&) const = default;
};

/// One decoder-only transformer: everything that decides its parameters and its mathematics. A
/// plain value; parse_config() and preset() return only values that passed check().
struct ModelConfig {
  std::string family;  ///< `model_type` of config.json: "gpt2", "llama", "opt", ...

  std::int64_t vocab_size = 0;   ///< rows of the token table, [1, 2^31)
  std::int64_t hidden = 0;       ///< C
  std::int64_t token_width = 0;  ///< of the token table; projected to and from `hidden`. 0: hidden
  std::int64_t layers = 0;
  std::int64_t heads = 0;          ///< H
  std::int64_t kv_heads = 0;       ///< G, divides heads
  std::int64_t head_size = 0;      ///< D; heads * head_size need not be `hidden`
  std::int64_t intermediate = 0;   ///< width of the MLP
  std::int64_t max_positions = 0;  ///< kLearned: a limit. kRotary: advice only

  NormKind norm = NormKind::kRms;
  float norm_epsilon = 1e-5f;
  bool pre_norm = true;         ///< x + f(norm(x)) instead of norm(x + f(x))
  bool final_norm = true;       ///< before the head
  bool query_key_norm = false;  ///< RMS norm of each head of q and k, before they are turned

  PositionKind positions = PositionKind::kRotary;
  std::int64_t position_offset = 0;  ///< kLearned: the table's row of position 0
  double rope_theta = 10000.0;
  RotaryScaling rope_scaling;

  Activation activation = Activation::kSilu;
  bool gated_mlp = true;     ///< down(f(gate x) * up x) instead of down(f(up x))
  bool scale_scores = true;  ///< attention scores times head_size^-0.5
  std::int64_t window = 0;   ///< tokens that attention sees, its own included; 0: the whole past
  std::int64_t first_windowed_layer = 0;  ///< layers before it see the whole past

  bool query_key_value_bias = false;
  bool output_bias = false;
  bool mlp_bias = false;
  bool tied = false;  ///< the head uses the token table; else it has a table of its own

  float initializer_range = 0.02f;          ///< standard deviation of fresh weights
  bool scale_residual_initializer = false;  ///< o and down: initializer_range / sqrt(2 layers)

  DropoutRates dropout;        ///< what the config asks for; whether training follows is its user's
                               ///< choice (chosen_dropout)
  float layer_dropout = 0.0f;  ///< OPT: share of layers that training leaves out; not implemented

  Dtype weight_dtype = Dtype::kF32;      ///< `torch_dtype`: fp32, bf16 or fp16
  std::vector<std::int32_t> end_tokens;  ///< `eos_token_id`; may be empty, may be >= vocab_size
  std::int32_t begin_token = -1;         ///< `bos_token_id`; -1: none

  bool norm_bias() const noexcept { return norm == NormKind::kLayer; }
  bool projects_tokens() const noexcept { return token_width > 0 && token_width != hidden; }
  std::int64_t table_width() const noexcept { return token_width > 0 ? token_width : hidden; }
  std::int64_t window_of(std::int64_t layer) const noexcept {
    return layer >= first_windowed_layer ? window : 0;
  }
  float attention_scale() const noexcept;
  std::int64_t query_width() const noexcept { return heads * head_size; }         ///< H D
  std::int64_t key_value_width() const noexcept { return kv_heads * head_size; }  ///< G D

  bool operator==(const ModelConfig&) const = default;
};

/// Every number in range and consistent with the others, so that no product of them overflows.
/// @throws FormatError that starts with `path` and names the key and its value
void check(const ModelConfig& config, const std::string& path);

/// The config.json of a Hugging Face model; `path` is for messages. Understands the keys of
/// transformers 4 (rope_theta, rope_scaling, torch_dtype) and 5 (rope_parameters, dtype). Whatever
/// would change the mathematics and is not implemented is refused, never ignored; other keys are
/// ignored. The text may be hostile.
/// @throws FormatError that starts with `path` and names key, value and what is supported
ModelConfig parse_config(std::string_view json, const std::string& path);

/// parse_config() of a file. @throws FormatError also when it is not there or over 1 MiB, IoError
/// if unreadable
ModelConfig read_config(const std::filesystem::path& file);

/// A config.json that transformers (4 and 5) loads and that parse_config() turns into an equal
/// config.
std::string to_json(const ModelConfig& config);

/// theta^(-2i/D) for i < D/2 with the scaling applied, in fp32 as transformers computes it.
/// @pre positions == kRotary
std::vector<float> inverse_frequencies(const ModelConfig& config);

/// A model to start from nothing, by name: "llama-26m", "gpt2-124m", ...
/// @throws UsageError that lists the names
ModelConfig preset(std::string_view name);
std::vector<std::string> preset_names();

}  // namespace strata
