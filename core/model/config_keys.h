#pragma once

// Internal to core/model: one JSON object with typed access, and what config.json calls values. Not
// installed.

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/model/config.h"

namespace strata {

/// One JSON object with typed, named access. A key that is null counts as absent, as in
/// transformers.
class Keys {
 public:
  Keys(const nlohmann::json& object, std::string path) : object_(object), path_(std::move(path)) {}

  const nlohmann::json* find(const char* key) const {
    const auto found = key == nullptr ? object_.end() : object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  /// Present, if only as null.
  bool has(const char* key) const { return key != nullptr && object_.contains(key); }

  [[noreturn]] void refuse(const char* key, const nlohmann::json& value,
                           const std::string& supported) const {
    throw FormatError(fmt::format(
        "{}: \"{}\" is {:.200}; supported is {}", path_, key,
        value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace), supported));
  }

  std::int64_t integer(const char* key, std::optional<std::int64_t> absent = {}) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return absent_or_throw(key, absent);
    if (!value->is_number_unsigned() ||
        value->get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
      refuse(key, *value, "a whole number from 0 to 2^63 - 1");
    }
    return value->get<std::int64_t>();
  }

  double real(const char* key, std::optional<double> absent = {}) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return absent_or_throw(key, absent);
    if (!value->is_number() || !std::isfinite(value->get<double>()))
      refuse(key, *value, "a number");
    return value->get<double>();
  }

  bool boolean(const char* key, bool absent) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return absent;
    if (!value->is_boolean()) refuse(key, *value, "true or false");
    return value->get<bool>();
  }

  std::string text(const char* key, std::optional<std::string> absent = {}) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return absent_or_throw(key, std::move(absent));
    if (!value->is_string()) refuse(key, *value, "a string");
    return value->get<std::string>();
  }

  const std::string& path() const { return path_; }
  const nlohmann::json& object() const { return object_; }

 private:
  template <typename T>
  T absent_or_throw(const char* key, std::optional<T> absent) const {
    if (!absent) throw FormatError(fmt::format("{}: the key \"{}\" is missing", path_, key));
    return *std::move(absent);
  }

  const nlohmann::json& object_;
  std::string path_;
};

inline constexpr std::pair<const char*, Activation> kActivations[] = {
    {"gelu_new", Activation::kGeluNew}, {"gelu_pytorch_tanh", Activation::kGeluNew},
    {"silu", Activation::kSilu},        {"swish", Activation::kSilu},
    {"relu", Activation::kRelu},
};
inline constexpr std::pair<const char*, Dtype> kWeightDtypes[] = {
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
  keys.refuse(key, nlohmann::json(text), known);
}

template <typename Value, std::size_t N>
const char* name_of(Value value, const std::pair<const char*, Value> (&table)[N]) {
  for (const auto& [name, candidate] : table) {
    if (candidate == value) return name;
  }
  throw Error("this value has no name in a config.json");
}

}  // namespace strata
