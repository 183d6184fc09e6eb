#include "core/model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace strata {
namespace {

/// Throws for one key at a time, so that the first thing wrong is named with its value.
class RangeCheck {
 public:
  explicit RangeCheck(const std::string& path) : path_(path) {}

  void integer(const char* what, std::int64_t value, std::int64_t low, std::int64_t high) const {
    if (value < low || value > high) {
      throw FormatError(
          fmt::format("{}: {} is {}; supported are {} to {}", path_, what, value, low, high));
    }
  }
  void real(const char* what, double value, double low, double high) const {
    if (!(value >= low && value <= high)) {
      throw FormatError(
          fmt::format("{}: {} is {}; supported are {} to {}", path_, what, value, low, high));
    }
  }
  void rule(bool holds, const std::string& sentence) const {
    if (!holds) throw FormatError(fmt::format("{}: {}", path_, sentence));
  }

 private:
  const std::string& path_;
};

void check_rotary(const ModelConfig& config, const RangeCheck& in_range) {
  in_range.rule(
      config.head_size % 2 == 0,
      fmt::format("the head size is {}; rotary positions need an even one", config.head_size));
  in_range.real("rope_theta", config.rope_theta, 1.0, 1e15);
  const RotaryScaling& scaling = config.rope_scaling;
  if (scaling.kind == RotaryScaling::Kind::kNone) return;
  in_range.real("the rope factor", scaling.factor, 1.0, 1e6);
  if (scaling.kind == RotaryScaling::Kind::kLinear) return;
  in_range.integer("original_max_position_embeddings", scaling.original_positions, 1, 1 << 30);
  if (scaling.kind == RotaryScaling::Kind::kYarn) {
    in_range.real("beta_fast", scaling.beta_fast, 1e-6, 1e6);
    in_range.real("beta_slow", scaling.beta_slow, 1e-6, 1e6);
    in_range.real("attention_factor", scaling.magnitude, 1e-6, 1e6);
    in_range.rule(config.rope_theta > 1.0, "yarn needs a rope_theta above 1");
    return;
  }
  in_range.real("low_freq_factor", scaling.low_frequency_factor, 1e-6, 1e6);
  in_range.real("high_freq_factor", scaling.high_frequency_factor, 1e-6, 1e6);
  in_range.rule(
      scaling.low_frequency_factor < scaling.high_frequency_factor,
      fmt::format("low_freq_factor is {} and high_freq_factor {}; the first must be smaller",
                  scaling.low_frequency_factor, scaling.high_frequency_factor));
}

double llama3_frequency(const RotaryScaling& scaling, double frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const auto original = static_cast<double>(scaling.original_positions);
  if (wavelength > original / scaling.low_frequency_factor) return frequency / scaling.factor;
  if (wavelength < original / scaling.high_frequency_factor) return frequency;
  const double smooth = (original / wavelength - scaling.low_frequency_factor) /
                        (scaling.high_frequency_factor - scaling.low_frequency_factor);
  return (1.0 - smooth) * frequency / scaling.factor + smooth * frequency;
}

/// Which part of a frequency yarn keeps, by the index of its pair of dimensions.
class YarnRamp {
 public:
  explicit YarnRamp(const ModelConfig& config) {
    const RotaryScaling& scaling = config.rope_scaling;
    if (scaling.kind != RotaryScaling::Kind::kYarn) return;
    const auto size = static_cast<double>(config.head_size);
    const auto dimension = [&](double turns) {
      const double positions = static_cast<double>(scaling.original_positions);
      return size * std::log(positions / (turns * 2.0 * std::numbers::pi)) /
             (2.0 * std::log(config.rope_theta));
    };
    double low = dimension(scaling.beta_fast);
    double high = dimension(scaling.beta_slow);
    if (scaling.whole_dimensions) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low_ = std::max(low, 0.0);
    high_ = std::min(high, size - 1.0);
    if (low_ == high_) high_ += 0.001;
  }
  float kept(std::int64_t pair) const {
    const auto at = static_cast<float>(pair) - static_cast<float>(low_);
    return 1.0f - std::clamp(at / static_cast<float>(high_ - low_), 0.0f, 1.0f);
  }

 private:
  double low_ = 0.0;
  double high_ = 1.0;
};

}  // namespace

float ModelConfig::attention_scale() const noexcept {
  return scale_scores ? 1.0f / std::sqrt(static_cast<float>(head_size)) : 1.0f;
}

void check(const ModelConfig& config, const std::string& path) {
  const RangeCheck in_range(path);
  in_range.integer("vocab_size", config.vocab_size, 1, (std::int64_t{1} << 31) - 1);
  in_range.integer("the hidden size", config.hidden, 1, 1 << 20);
  in_range.integer("the number of layers", config.layers, 1, 1 << 14);
  in_range.integer("the number of attention heads", config.heads, 1, 1 << 16);
  in_range.integer("num_key_value_heads", config.kv_heads, 1, config.heads);
  in_range.rule(config.heads % config.kv_heads == 0,
                fmt::format("{} attention heads are not a multiple of {} key-value heads",
                            config.heads, config.kv_heads));
  in_range.integer("the head size", config.head_size, 1, 1 << 14);
  in_range.integer("heads times head size", config.query_width(), 1, 1 << 22);
  in_range.integer("the width of the MLP", config.intermediate, 1, 1 << 23);
  in_range.integer("the number of positions", config.max_positions, 1, 1 << 30);
  in_range.integer("word_embed_proj_dim", config.table_width(), 1, 1 << 20);
  in_range.integer("sliding_window", config.window, 0, 1 << 30);
  in_range.integer("max_window_layers", config.first_windowed_layer, 0, 1 << 30);
  in_range.real("the epsilon of the norms", static_cast<double>(config.norm_epsilon), 1e-15, 1.0);
  in_range.real("initializer_range", static_cast<double>(config.initializer_range), 0.0, 1.0);
  for (const float rate : {config.dropout.embedding, config.dropout.residual,
                           config.dropout.attention, config.layer_dropout}) {
    in_range.rule(rate >= 0.0f && rate < 1.0f,
                  fmt::format("a rate of dropout is {}; it must be at least 0 and below 1", rate));
  }
  if (config.positions == PositionKind::kRotary) check_rotary(config, in_range);
  for (const std::int32_t token : config.end_tokens) {
    in_range.integer("eos_token_id", token, 0, std::numeric_limits<std::int32_t>::max());
  }
}

std::vector<float> inverse_frequencies(const ModelConfig& config) {
  expects(config.positions == PositionKind::kRotary, "only rotary positions have frequencies");
  std::vector<float> result;
  result.reserve(static_cast<std::size_t>(config.head_size / 2));
  const YarnRamp yarn(config);
  for (std::int64_t i = 0; i < config.head_size / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_size);
    float frequency = 1.0f / std::pow(static_cast<float>(config.rope_theta), exponent);
    const RotaryScaling& scaling = config.rope_scaling;
    if (scaling.kind == RotaryScaling::Kind::kLinear) {
      frequency /= static_cast<float>(scaling.factor);
    }
    if (scaling.kind == RotaryScaling::Kind::kYarn) {
      const float kept = yarn.kept(i);
      frequency = frequency / static_cast<float>(scaling.factor) * (1.0f - kept) + frequency * kept;
    }
    if (scaling.kind == RotaryScaling::Kind::kLlama3) {
      frequency = static_cast<float>(llama3_frequency(scaling, static_cast<double>(frequency)));
    }
    result.push_back(frequency);
  }
  return result;
}

}  // namespace strata
