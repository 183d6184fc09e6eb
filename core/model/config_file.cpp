#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/json_file.h"
#include "core/model/config_keys.h"
#include "core/model/family.h"

namespace strata {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxConfigBytes = 1 << 20;
constexpr int kMaxDepth = 16;

/// Keys that change the mathematics and have one supported value; null counts as absent.
void refuse_unsupported(const Keys& keys) {
  static const std::pair<const char*, json> kOnly[] = {
      {"quantization_config", nullptr},    {"scale_attn_by_inverse_layer_idx", false},
      {"reorder_and_upcast_attn", false},  {"add_cross_attention", false},
      {"is_encoder_decoder", false},       {"layer_norm_elementwise_affine", true},
      {"attn_logit_softcapping", nullptr}, {"final_logit_softcapping", nullptr},
      {"partial_rotary_factor", 1.0},      {"pruned_heads", json::object()},
  };
  for (const auto& [key, only] : kOnly) {
    const json* value = keys.find(key);
    if (value != nullptr && *value != only) {
      keys.refuse(key, *value, only.is_null() ? "null (no such thing)" : only.dump());
    }
  }
}

const Family& read_family(const Keys& keys) {
  const std::string model_type = keys.text("model_type");
  const Family* family = find_family(model_type);
  if (family == nullptr) {
    std::vector<std::string> known;
    for (const Family& row : kFamilies) known.push_back(fmt::format("\"{}\"", row.model_type));
    keys.refuse("model_type", model_type, fmt::format("{}", fmt::join(known, ", ")));
  }
  if (const json* classes = keys.find("architectures")) {
    for (const json& name : *classes) {
      if (name != family->causal_class && name != family->base_class) {
        keys.refuse("architectures", name, fmt::format("\"{}\"", family->causal_class));
      }
    }
  }
  return *family;
}

double yarn_magnitude(double factor, double scale = 1.0) {
  return factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

void read_yarn(const Keys& rope, std::int64_t max_positions, RotaryScaling& scaling) {
  scaling.kind = RotaryScaling::Kind::kYarn;
  scaling.original_positions = rope.integer("original_max_position_embeddings", max_positions);
  scaling.beta_fast = rope.real("beta_fast", scaling.beta_fast);
  scaling.beta_slow = rope.real("beta_slow", scaling.beta_slow);
  scaling.whole_dimensions = rope.boolean("truncate", true);
  const double own = rope.real("mscale", 0.0);
  const double all = rope.real("mscale_all_dim", 0.0);
  const double derived = own != 0.0 && all != 0.0 ? yarn_magnitude(scaling.factor, own) /
                                                        yarn_magnitude(scaling.factor, all)
                                                  : yarn_magnitude(scaling.factor);
  scaling.magnitude = rope.real("attention_factor", derived);
}

/// Refuses keys that this type of rope does not have.
void check_rope_keys(const Keys& rope, const std::string& type) {
  std::vector<std::string_view> known = {"rope_type",
                                         "type",
                                         "rope_theta",
                                         "factor",
                                         "low_freq_factor",
                                         "high_freq_factor",
                                         "partial_rotary_factor",
                                         "original_max_position_embeddings"};
  if (type == "yarn") {
    known.insert(known.end(), {"attention_factor", "beta_fast", "beta_slow", "mscale",
                               "mscale_all_dim", "truncate"});
  }
  for (const auto& [key, value] : rope.object().items()) {
    if (std::ranges::count(known, key) == 0) {
      rope.refuse(key.c_str(), value, fmt::format("a \"{}\" rope without this key", type));
    }
  }
  if (rope.real("partial_rotary_factor", 1.0) != 1.0) {
    rope.refuse("partial_rotary_factor", *rope.find("partial_rotary_factor"), "1");
  }
}

/// `rope` is rope_scaling (transformers 4) or rope_parameters (5).
RotaryScaling read_scaling(const Keys& rope, std::int64_t max_positions) {
  const char* key = rope.find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string type = rope.text(key, "default");
  check_rope_keys(rope, type);
  RotaryScaling scaling;
  if (type == "default") return scaling;
  if (type == "linear") {
    scaling.kind = RotaryScaling::Kind::kLinear;
    scaling.factor = rope.real("factor");
  } else if (type == "llama3") {
    scaling.kind = RotaryScaling::Kind::kLlama3;
    scaling.factor = rope.real("factor");
    scaling.low_frequency_factor = rope.real("low_freq_factor");
    scaling.high_frequency_factor = rope.real("high_freq_factor");
    scaling.original_positions = rope.integer("original_max_position_embeddings");
  } else if (type == "yarn") {
    scaling.factor = rope.real("factor");
    read_yarn(rope, max_positions, scaling);
  } else {
    rope.refuse(key, type, "\"default\", \"linear\", \"llama3\" or \"yarn\"");
  }
  return scaling;
}

void read_rotary(const Keys& keys, ModelConfig& config) {
  config.rope_theta = keys.real("rope_theta", 10000.0);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* object = keys.find(key);
    if (object == nullptr) continue;
    if (!object->is_object()) keys.refuse(key, *object, "an object or null");
    const Keys rope(*object, fmt::format("{}: {}", keys.path(), key));
    const double theta = rope.real("rope_theta", config.rope_theta);
    if (keys.find("rope_theta") != nullptr && theta != config.rope_theta) {
      keys.refuse("rope_theta", *keys.find("rope_theta"),
                  fmt::format("one value, and {} says {}", key, theta));
    }
    config.rope_theta = theta;
    const RotaryScaling scaling = read_scaling(rope, config.max_positions);
    if (config.rope_scaling.kind != RotaryScaling::Kind::kNone && scaling != config.rope_scaling) {
      keys.refuse(key, *object, "what rope_scaling says");
    }
    config.rope_scaling = scaling;
  }
}

std::int32_t token_id(const Keys& keys, const char* key, const json& value) {
  if (!value.is_number_unsigned() ||
      value.get<std::uint64_t>() > std::numeric_limits<std::int32_t>::max()) {
    keys.refuse(key, value, "a token id");
  }
  return value.get<std::int32_t>();
}

void read_tokens(const Keys& keys, ModelConfig& config) {
  if (const json* begin = keys.find("bos_token_id")) {
    config.begin_token = token_id(keys, "bos_token_id", *begin);
  }
  if (const json* end = keys.find("eos_token_id")) {
    const json list = end->is_array() ? *end : json::array({*end});
    for (const json& id : list) config.end_tokens.push_back(token_id(keys, "eos_token_id", id));
  }
}

void read_dimensions(const Keys& keys, const Family& family, ModelConfig& config) {
  config.vocab_size = keys.integer("vocab_size");
  config.hidden = keys.integer(family.keys.hidden);
  config.layers = keys.integer(family.keys.layers);
  config.heads = keys.integer(family.keys.heads);
  const bool says_kv_heads = keys.has(family.keys.kv_heads) || family.default_kv_heads == 0;
  config.kv_heads =
      keys.integer(family.keys.kv_heads, says_kv_heads ? config.heads : family.default_kv_heads);
  config.max_positions = keys.integer(family.keys.positions, family.default_positions);
  if (keys.find(family.keys.head_size) != nullptr) {
    config.head_size = keys.integer(family.keys.head_size);
  } else if (family.default_head_size > 0) {
    config.head_size = family.default_head_size;
  } else if (config.heads < 1 || config.hidden % config.heads != 0) {
    throw FormatError(fmt::format("{}: \"{}\" is {}, which is not a multiple of \"{}\", {}",
                                  keys.path(), family.keys.hidden, config.hidden, family.keys.heads,
                                  config.heads));
  } else {
    config.head_size = config.hidden / config.heads;
  }
  const bool four_times = !family.gated_mlp && config.hidden <= (1 << 20);
  config.intermediate =
      keys.integer(family.keys.intermediate,
                   four_times ? std::optional<std::int64_t>(4 * config.hidden) : std::nullopt);
  const std::int64_t width = keys.integer(family.keys.token_width, config.hidden);
  config.token_width = width == config.hidden ? 0 : width;
  config.position_offset = family.position_offset;
}

void read_norms(const Keys& keys, const Family& family, ModelConfig& config) {
  config.norm = family.norm;
  config.norm_epsilon = static_cast<float>(
      keys.real(family.keys.epsilon, static_cast<double>(family.default_epsilon)));
  config.pre_norm = keys.boolean(family.keys.pre_norm, true);
  config.final_norm = config.pre_norm && !keys.boolean(family.keys.no_final_norm, false);
  config.query_key_norm = family.query_key_norm;
}

/// Layers with a window must be the last ones.
void read_layer_types(const Keys& keys, ModelConfig& config) {
  const json* types = keys.find("layer_types");
  if (types == nullptr) return;
  if (!types->is_array() || static_cast<std::int64_t>(types->size()) != config.layers) {
    keys.refuse("layer_types", *types, fmt::format("a list of {} layers", config.layers));
  }
  config.first_windowed_layer = 0;
  bool windowed = false;
  for (const json& type : *types) {
    const bool full = type == "full_attention";
    if (!full && (type != "sliding_attention" || config.window == 0)) {
      keys.refuse("layer_types", type, "\"full_attention\", or sliding_window with a value");
    }
    if (full && windowed) {
      keys.refuse("layer_types", *types, "\"full_attention\" before all \"sliding_attention\"");
    }
    config.first_windowed_layer += full ? 1 : 0;
    windowed = !full;
  }
}

void read_window(const Keys& keys, const Family& family, ModelConfig& config) {
  if (family.keys.window == nullptr) {
    if (const json* window = keys.find("sliding_window")) {
      keys.refuse("sliding_window", *window, "null (no such thing)");
    }
  } else if (family.keys.use_window == nullptr || keys.boolean(family.keys.use_window, false)) {
    const bool absent = !keys.has(family.keys.window);
    config.window = keys.integer(family.keys.window, absent ? family.default_window : 0);
    config.first_windowed_layer =
        keys.integer(family.keys.first_windowed_layer, family.default_first_windowed_layer);
  }
  read_layer_types(keys, config);
  if (config.first_windowed_layer >= config.layers) config.window = 0;
  if (config.window == 0) config.first_windowed_layer = 0;
}

void read_dropout(const Keys& keys, const Family& family, ModelConfig& config) {
  const auto read = [&keys](const char* key, float absent) {
    return static_cast<float>(keys.real(key, static_cast<double>(absent)));
  };
  const DropoutRates& absent = family.default_dropout;
  config.dropout = {.embedding = read(family.keys.embedding_dropout, absent.embedding),
                    .residual = read(family.keys.residual_dropout, absent.residual),
                    .attention = read(family.keys.attention_dropout, absent.attention)};
  config.layer_dropout = read(family.keys.layer_dropout, 0.0f);
}

}  // namespace

ModelConfig parse_config(std::string_view text, const std::string& path) {
  const json document = parse_json_object(text, path, kMaxDepth);
  const Keys keys(document, path);
  refuse_unsupported(keys);
  const Family& family = read_family(keys);
  ModelConfig config;
  config.family = family.model_type;
  read_dimensions(keys, family, config);
  read_norms(keys, family, config);
  read_window(keys, family, config);
  read_dropout(keys, family, config);
  config.positions = family.position_kind;
  if (config.positions == PositionKind::kRotary) read_rotary(keys, config);
  config.gated_mlp = family.gated_mlp;
  config.activation = value_named(
      keys, family.keys.activation, kActivations,
      keys.text(family.keys.activation, name_of(family.default_activation, kActivations)));
  config.scale_scores = keys.boolean(family.keys.scale_scores, true);
  config.query_key_value_bias =
      keys.boolean(family.keys.attention_bias, family.default_query_key_value_bias);
  config.output_bias = keys.boolean(family.keys.attention_bias, family.default_output_bias);
  config.mlp_bias = keys.boolean(family.keys.mlp_bias, family.default_mlp_bias);
  config.tied = keys.boolean("tie_word_embeddings", family.default_tied);
  config.initializer_range = static_cast<float>(keys.real(family.keys.initializer, 0.02));
  config.scale_residual_initializer = family.scale_residual_initializer;
  const char* dtype_key = keys.find("dtype") != nullptr ? "dtype" : "torch_dtype";
  config.weight_dtype =
      value_named(keys, dtype_key, kWeightDtypes, keys.text(dtype_key, "float32"));
  read_tokens(keys, config);
  check(config, path);
  return config;
}

ModelConfig read_config(const std::filesystem::path& file) {
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) {
    throw FormatError(fmt::format(
        "{}: is not there; name a model directory as transformers saves them, or make one with "
        "strata init",
        file.string()));
  }
  return parse_config(read_text_file(file, kMaxConfigBytes), file.string());
}

}  // namespace strata
