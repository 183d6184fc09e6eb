#include "launch/generation/generation_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_file.h"
#include "core/nearest_name.h"

namespace strata {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::size_t kMaxFileBytes = 16 << 20;
constexpr int kMaxDepth = 32;
constexpr std::int64_t kMostTokens = std::numeric_limits<std::int32_t>::max();
/// Below this a temperature is taken for 0: logits divided by it would overflow.
constexpr double kLeastTemperature = 1e-5;

/// Keys of transformers' GenerationConfig that are not honoured, with the value that asks for
/// nothing, beside null, false, 0 and what is empty.
struct Unhonoured {
  std::string_view key;
  double neutral = 0;
};
constexpr Unhonoured kUnhonoured[] = {
    {"num_beams", 1},
    {"num_beam_groups", 1},
    {"num_return_sequences", 1},
    {"penalty_alpha"},
    {"dola_layers"},
    {"min_length"},
    {"min_new_tokens"},
    {"max_time"},
    {"typical_p", 1},
    {"top_h", 1},
    {"epsilon_cutoff"},
    {"eta_cutoff"},
    {"encoder_repetition_penalty", 1},
    {"no_repeat_ngram_size"},
    {"encoder_no_repeat_ngram_size"},
    {"bad_words_ids"},
    {"force_words_ids"},
    {"constraints"},
    {"forced_bos_token_id"},
    {"forced_eos_token_id"},
    {"suppress_tokens"},
    {"begin_suppress_tokens"},
    {"sequence_bias"},
    {"exponential_decay_length_penalty"},
    {"guidance_scale", 1},
    {"watermarking_config"},
};
constexpr std::string_view kHonoured[] = {
    "do_sample",          "temperature",    "top_k",        "top_p",      "min_p",
    "repetition_penalty", "max_new_tokens", "eos_token_id", "max_length", "stop_strings"};

class Reader {
 public:
  Reader(const json& document, std::string file) : document_(document), file_(std::move(file)) {}

  /// Null: it is not said.
  const json& at(std::string_view key) const {
    static const json kNothing;
    const auto found = document_.find(key);
    return found == document_.end() ? kNothing : *found;
  }
  [[noreturn]] void refuse(std::string_view key, std::string_view wanted) const {
    throw FormatError(
        fmt::format("{}: \"{}\" is {:.60}, not {}", file_, key, at(key).dump(), wanted));
  }
  double number(std::string_view key, double missing, double low, double high) const {
    const json& value = at(key);
    if (value.is_null()) return missing;
    const double number = value.is_number() ? value.get<double>() : std::nan("");
    if (!(number >= low && number <= high)) {
      refuse(key, fmt::format("a number from {} to {}", low, high));
    }
    return number;
  }
  std::optional<std::int64_t> whole(std::string_view key, std::int64_t low) const {
    const json& value = at(key);
    if (value.is_null()) return std::nullopt;
    const double number = value.is_number() ? value.get<double>() : std::nan("");
    if (!(number >= static_cast<double>(low) && number == std::floor(number))) {
      refuse(key, fmt::format("a whole number of at least {}", low));
    }
    // Some files say 1e30 for "no end".
    return static_cast<std::int64_t>(std::min(number, static_cast<double>(kMostTokens)));
  }
  bool flag(std::string_view key) const {
    const json& value = at(key);
    if (!value.is_null() && !value.is_boolean()) refuse(key, "true or false");
    return value == true;
  }
  /// An id or a list of ids.
  std::vector<std::int32_t> ids(std::string_view key) const {
    std::vector<std::int32_t> ids;
    const json& value = at(key);
    if (value.is_null()) return ids;
    const json list = value.is_array() ? value : json::array({value});
    for (const json& id : list) {
      const bool fits = id.is_number_integer() && id >= 0 && id <= kMostTokens;
      if (!fits) refuse(key, "an id or a list of ids");
      ids.push_back(id.get<std::int32_t>());
    }
    return ids;
  }
  std::vector<std::string> strings(std::string_view key) const {
    std::vector<std::string> strings;
    const json& value = at(key);
    if (value.is_null()) return strings;
    const json list = value.is_array() ? value : json::array({value});
    for (const json& text : list) {
      if (!text.is_string() || text == "") refuse(key, "a string or a list of strings");
      strings.push_back(text.get<std::string>());
    }
    return strings;
  }

 private:
  const json& document_;
  std::string file_;
};

bool asks_for_nothing(const json& value, double neutral) {
  return value.is_null() || value == false || value == 0 || value == "" ||
         (value.is_structured() && value.empty()) || (value.is_number() && value == neutral);
}

void add_warnings(const json& document, const std::string& file,
                  std::vector<std::string>& warnings) {
  std::vector<std::string> honoured(std::begin(kHonoured), std::end(kHonoured));
  for (const auto& [key, value] : document.items()) {
    const auto found = std::ranges::find(kUnhonoured, std::string_view(key), &Unhonoured::key);
    if (found != std::end(kUnhonoured)) {
      if (asks_for_nothing(value, found->neutral)) continue;
      warnings.push_back(
          fmt::format("{}: \"{}\": {:.60} is not honoured", file, key, value.dump()));
      continue;
    }
    // What others write into these files is theirs, unless it looks like a slip.
    const bool known = std::ranges::find(honoured, key) != honoured.end() || key == "bos_token_id";
    const std::string nearest = known || key.size() < 5 ? "" : nearest_name(key, honoured);
    if (nearest.empty() || edit_distance(key, nearest) > 1) continue;
    warnings.push_back(fmt::format(
        "{}: \"{}\" is not known and does not count; did you mean \"{}\"?", file, key, nearest));
  }
}

json read_json(const fs::path& file) {
  if (!fs::exists(file)) return json::object();
  return parse_json_object(read_text_file(file, kMaxFileBytes), file.string(), kMaxDepth);
}

}  // namespace

GenerationConfig read_generation_config(const fs::path& directory, const Tokenizer& tokenizer) {
  const fs::path model_file = directory / "config.json";
  const json model = read_json(model_file);
  const fs::path own_file = directory / "generation_config.json";
  const bool own = fs::exists(own_file);
  const json document = own ? read_json(own_file) : model;
  const fs::path& file = own ? own_file : model_file;
  const Reader reader(document, file.string());

  GenerationConfig config;
  GenerationSettings& settings = config.settings;
  SamplingOptions& sampling = settings.sampling;
  sampling.greedy = !reader.flag("do_sample");
  const double temperature = reader.number("temperature", 1, 0, 100);
  sampling.greedy = sampling.greedy || temperature < kLeastTemperature;
  sampling.temperature = static_cast<float>(temperature < kLeastTemperature ? 1.0 : temperature);
  sampling.top_k = reader.whole("top_k", 0).value_or(50);
  sampling.top_p = static_cast<float>(reader.number("top_p", 1, 1e-6, 1));
  sampling.min_p = static_cast<float>(reader.number("min_p", 0, 0, 1));
  sampling.repetition_penalty =
      static_cast<float>(reader.number("repetition_penalty", 1, 0.01, 100));
  settings.max_new_tokens = reader.whole("max_new_tokens", 1);
  // config.json of old models has the default of transformers, 20, which nobody meant.
  if (own) settings.max_length = reader.whole("max_length", 1);
  settings.stop = reader.strings("stop_strings");
  settings.stop_ids = reader.ids("eos_token_id");
  if (settings.stop_ids.empty()) {
    settings.stop_ids = Reader(model, model_file.string()).ids("eos_token_id");
  }
  if (settings.stop_ids.empty()) settings.stop_ids = {tokenizer.end_of_document()};
  add_warnings(document, file.string(), config.warnings);
  return config;
}

GenerationSettings overridden(GenerationSettings settings, const RequestOverrides& overrides) {
  SamplingOptions& sampling = settings.sampling;
  if (overrides.top_k || overrides.top_p || overrides.min_p) sampling.greedy = false;
  if (overrides.temperature) {
    sampling.greedy = *overrides.temperature < kLeastTemperature;
    if (!sampling.greedy) sampling.temperature = static_cast<float>(*overrides.temperature);
  }
  if (overrides.top_k) sampling.top_k = *overrides.top_k;
  if (overrides.top_p) sampling.top_p = static_cast<float>(*overrides.top_p);
  if (overrides.min_p) sampling.min_p = static_cast<float>(*overrides.min_p);
  if (overrides.repetition_penalty) {
    sampling.repetition_penalty = static_cast<float>(*overrides.repetition_penalty);
  }
  if (overrides.seed) sampling.seed = *overrides.seed;
  if (overrides.log_probabilities) sampling.log_probability = *overrides.log_probabilities;
  if (overrides.max_tokens) settings.max_new_tokens = overrides.max_tokens;
  settings.stop.insert(settings.stop.end(), overrides.stop.begin(), overrides.stop.end());
  settings.stop_ids.insert(settings.stop_ids.end(), overrides.stop_ids.begin(),
                           overrides.stop_ids.end());
  return settings;
}

std::optional<std::int64_t> new_tokens(const GenerationSettings& settings,
                                       std::int64_t prompt_tokens) {
  if (settings.max_new_tokens) return settings.max_new_tokens;
  if (!settings.max_length) return std::nullopt;
  return std::max<std::int64_t>(1, *settings.max_length - prompt_tokens);
}

std::string describe(const GenerationSettings& settings, const Tokenizer& tokenizer) {
  const SamplingOptions& sampling = settings.sampling;
  std::string text = "greedy";
  if (!sampling.greedy) {
    text = fmt::format("temperature {:g}", sampling.temperature);
    if (sampling.top_k > 0) text += fmt::format(", top-k {}", sampling.top_k);
    if (sampling.top_p < 1) text += fmt::format(", top-p {:g}", sampling.top_p);
    if (sampling.min_p > 0) text += fmt::format(", min-p {:g}", sampling.min_p);
  }
  if (sampling.repetition_penalty != 1) {
    text += fmt::format(", repetition penalty {:g}", sampling.repetition_penalty);
  }
  if (!sampling.greedy) text += fmt::format("; seed {}", sampling.seed);
  std::vector<std::string> ends;
  for (const std::int32_t id : settings.stop_ids) {
    ends.push_back(fmt::format("{}", id));
    if (id >= tokenizer.vocab_size()) continue;
    try {
      ends.back() = tokenizer.decode(std::span(&id, 1), false);
    } catch (const Error&) {  // no token: the number says it
    }
  }
  for (const std::string& stop : settings.stop) {
    ends.push_back(nlohmann::json(stop).dump(-1, ' ', false, json::error_handler_t::replace));
  }
  if (!ends.empty()) text += fmt::format("; ends at {}", fmt::join(ends, ", "));
  return text;
}

}  // namespace strata
