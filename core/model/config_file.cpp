#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/json_file.h"
#include "core/model/config.h"
#include "core/model/family.h"

namespace strata {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxConfigBytes = 1 << 20;
constexpr int kMaxDepth = 16;

/// One JSON object with typed, named access. A key that is null counts as absent, as in
/// transformers.
class Keys {
 public:
  Keys(const json& object, std::string path) : object_(object), path_(std::move(path)) {}

  const json* find(const char* key) const {
    const auto found = key == nullptr ? object_.end() : object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  [[noreturn]] void refuse(const char* key, const json& value, const std::string& supported) const {
    throw FormatError(fmt::format("{}: \"{}\" is {:.200}; supported is {}", path_, key,
                                  value.dump(-1, ' ', true, json::error_handler_t::replace),
                                  supported));
  }

  std::int64_t integer(const char* key, std::optional<std::int64_t> absent = {}) const {
    const json* value = find(key);
    if (value == nullptr) return absent_or_throw(key, absent);
    if (!value->is_number_unsigned() ||
        value->get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
      refuse(key, *value, "a whole number from 0 to 2^63 - 1");
    }
    return value->get<std::int64_t>();
  }

  double real(const char* key, std::optional<double> absent = {}) const {
    const json* value = find(key);
    if (value == nullptr) return absent_or_throw(key, absent);
    if (!value->is_number() || !std::isfinite(value->get<double>()))
      refuse(key, *value, "a number");
    return value->get<double>();
  }

  bool boolean(const char* key, bool absent) const {
    const json* value = find(key);
    if (value == nullptr) return absent;
    if (!value->is_boolean()) refuse(key, *value, "true or false");
    return value->get<bool>();
  }

  std::string text(const char* key, std::optional<std::string> absent = {}) const {
    const json* value = find(key);
    if (value == nullptr) return absent_or_throw(key, std::move(absent));
    if (!value->is_string()) refuse(key, *value, "a string");
    return value->get<std::string>();
  }

  const std::string& path() const { return path_; }
  const json& object() const { return object_; }

 private:
  template <typename T>
  T absent_or_throw(const char* key, std::optional<T> absent) const {
    if (!absent) throw FormatError(fmt::format("{}: the key \"{}\" is missing", path_, key));
    return *std::move(absent);
  }

  const json& object_;
  std::string path_;
};

// ---- names of values
// -----------------------------------------------------------------------------

constexpr std::pair<const char*, Activation> kActivations[] = {
    {"gelu_new", Activation::kGeluNew}, {"gelu_pytorch_tanh", Activation::kGeluNew},
    {"silu", Activation::kSilu},        {"swish", Activation::kSilu},
    {"relu", Activation::kRelu},
};
constexpr std::pair<const char*, Dtype> kWeightDtypes[] = {
    {"float32", Dtype::kF32}, {"bfloat16", Dtype::kBf16}, {"float16", Dtype::kF16}};

template <typename Value, std::size_t N>
Value value_named(const Keys& keys, const char* key,
                  const std::pair<const char*, Value> (&table)[N], std::string text) {
  if (text.starts_with("torch.")) text.erase(0, 6);
  std::string known;
  for (const auto& [name, value] : table) {
    if (text == name) return value;
    known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", name);
  }
  keys.refuse(key, json(text), known);
}

template <typename Value, std::size_t N>
const char* name_of(Value value, const std::pair<const char*, Value> (&table)[N]) {
  for (const auto& [name, candidate] : table) {
    if (candidate == value) return name;
  }
  throw Error("this value has no name in a config.json");
}

// ---- reading
// -------------------------------------------------------------------------------------

/// Keys that change the mathematics and have one supported value; null counts as absent.
void refuse_unsupported(const Keys& keys) {
  static const std::pair<const char*, json> kOnly[] = {
      {"quantization_config", nullptr},    {"scale_attn_by_inverse_layer_idx", false},
      {"reorder_and_upcast_attn", false},  {"add_cross_attention", false},
      {"is_encoder_decoder", false},       {"sliding_window", nullptr},
      {"attn_logit_softcapping", nullptr}, {"final_logit_softcapping", nullptr},
      {"partial_rotary_factor", 1.0},      {"pruned_heads", json::object()},
  };
  for (const auto& [key, only] : kOnly) {
    const json* value = keys.find(key);
    if (value != nullptr && *value != only) {
      keys.refuse(key, *value, only.is_null() ? "null (no such thing)" : only.dump());
    }
  }
  if (const json* types = keys.find("layer_types")) {
    for (const json& type : *types) {
      if (type != "full_attention") keys.refuse("layer_types", type, "\"full_attention\"");
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

/// `rope` is rope_scaling (transformers 4) or rope_parameters (5).
RotaryScaling read_scaling(const Keys& rope) {
  static constexpr std::string_view kKnown[] = {"rope_type",
                                                "type",
                                                "rope_theta",
                                                "factor",
                                                "low_freq_factor",
                                                "high_freq_factor",
                                                "original_max_position_embeddings",
                                                "partial_rotary_factor"};
  for (const auto& [key, value] : rope.object().items()) {
    if (std::find(std::begin(kKnown), std::end(kKnown), key) == std::end(kKnown)) {
      rope.refuse(key.c_str(), value, "a rope without this key");
    }
  }
  if (rope.real("partial_rotary_factor", 1.0) != 1.0) {
    rope.refuse("partial_rotary_factor", *rope.find("partial_rotary_factor"), "1");
  }
  const char* key = rope.find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string type = rope.text(key, "default");
  RotaryScaling scaling;
  if (type == "default") return scaling;
  if (type != "linear" && type != "llama3") {
    rope.refuse(key, type, "\"default\", \"linear\" or \"llama3\"");
  }
  scaling.factor = rope.real("factor");
  scaling.kind = RotaryScaling::Kind::kLinear;
  if (type == "llama3") {
    scaling.kind = RotaryScaling::Kind::kLlama3;
    scaling.low_frequency_factor = rope.real("low_freq_factor");
    scaling.high_frequency_factor = rope.real("high_freq_factor");
    scaling.original_positions = rope.integer("original_max_position_embeddings");
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
    const RotaryScaling scaling = read_scaling(rope);
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
  config.kv_heads = keys.integer(family.keys.kv_heads, config.heads);
  config.max_positions = keys.integer(family.keys.positions, family.default_positions);
  if (keys.find(family.keys.head_size) != nullptr) {
    config.head_size = keys.integer(family.keys.head_size);
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
  config.norm = family.norm;
  config.norm_epsilon = static_cast<float>(
      keys.real(family.keys.epsilon, static_cast<double>(family.default_epsilon)));
  config.positions = family.position_kind;
  if (config.positions == PositionKind::kRotary) read_rotary(keys, config);
  config.gated_mlp = family.gated_mlp;
  config.activation =
      value_named(keys, family.keys.activation, kActivations,
                  keys.text(family.keys.activation, family.gated_mlp ? "silu" : "gelu_new"));
  config.scale_scores = keys.boolean(family.keys.scale_scores, true);
  const bool bias = keys.boolean(family.keys.attention_bias, family.default_attention_bias);
  config.query_key_value_bias = config.output_bias = bias;
  config.mlp_bias = keys.boolean(family.keys.mlp_bias, family.default_mlp_bias);
  config.tied = keys.boolean("tie_word_embeddings", family.default_tied);
  config.initializer_range = static_cast<float>(keys.real("initializer_range", 0.02));
  config.scale_residual_initializer = family.scale_residual_initializer;
  const char* dtype_key = keys.find("dtype") != nullptr ? "dtype" : "torch_dtype";
  config.weight_dtype =
      value_named(keys, dtype_key, kWeightDtypes, keys.text(dtype_key, "float32"));
  read_tokens(keys, config);
  check(config, path);
  return config;
}

ModelConfig read_config(const std::filesystem::path& file) {
  return parse_config(read_text_file(file, kMaxConfigBytes), file.string());
}

// ---- writing
// -------------------------------------------------------------------------------------

namespace {

using nlohmann::ordered_json;

void set(ordered_json& out, const char* key, ordered_json value) {
  if (key != nullptr) out[key] = std::move(value);
}

/// The shortest decimal that reads back as the same float: 1e-05, not 9.999999747378752e-06.
double decimal(float value) { return std::stod(fmt::format("{}", value)); }

ordered_json rope_scaling(const RotaryScaling& scaling) {
  if (scaling.kind == RotaryScaling::Kind::kNone) return nullptr;
  ordered_json out;
  out["rope_type"] = scaling.kind == RotaryScaling::Kind::kLinear ? "linear" : "llama3";
  out["factor"] = scaling.factor;
  if (scaling.kind == RotaryScaling::Kind::kLinear) return out;
  out["low_freq_factor"] = scaling.low_frequency_factor;
  out["high_freq_factor"] = scaling.high_frequency_factor;
  out["original_max_position_embeddings"] = scaling.original_positions;
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
  if (config.positions == PositionKind::kRotary) {
    out["rope_theta"] = config.rope_theta;
    out["rope_scaling"] = rope_scaling(config.rope_scaling);
  }
  set(out, family->keys.activation, name_of(config.activation, kActivations));
  set(out, family->keys.scale_scores, config.scale_scores);
  set(out, family->keys.attention_bias, config.query_key_value_bias);
  set(out, family->keys.mlp_bias, config.mlp_bias);
  out["tie_word_embeddings"] = config.tied;
  out["initializer_range"] = decimal(config.initializer_range);
  out["torch_dtype"] = name_of(config.weight_dtype, kWeightDtypes);
  out["bos_token_id"] = nullptr;
  if (config.begin_token >= 0) out["bos_token_id"] = config.begin_token;
  out["eos_token_id"] = nullptr;
  if (config.end_tokens.size() == 1) out["eos_token_id"] = config.end_tokens.front();
  if (config.end_tokens.size() > 1) out["eos_token_id"] = config.end_tokens;
  return out.dump(2) + "\n";
}

}  // namespace strata
