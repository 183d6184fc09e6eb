#pragma once

// Internal: values of a configuration file with their places in it. Not installed.

#include <cstdint>
#include <limits>
#include <string>

#include <nlohmann/json.hpp>

namespace strata {

/// A value with its place in a file; absent when there is none, or null. File and document are
/// borrowed. Values that cannot be what is asked for are refused with a UsageError that names file,
/// key, value and what would do.
class ConfigNode {
 public:
  static constexpr std::int64_t kMost = std::int64_t{1} << 53;  ///< what a number holds exactly
  static constexpr double kAnyReal = std::numeric_limits<double>::max();

  ConfigNode(const std::string& file, const nlohmann::json& document)
      : file_(&file), value_(&document) {}

  explicit operator bool() const { return value_ != nullptr && !value_->is_null(); }
  /// Absent too if this is no object or has no such key.
  ConfigNode operator[](const std::string& key) const;

  const std::string& path() const { return path_; }  ///< "optimizer.params.lr"
  bool automatic() const { return *this && *value_ == "auto"; }

  // Of what is there:

  const nlohmann::json& value() const { return *value_; }
  std::string shown() const;  ///< as JSON, cut where it is long
  bool boolean() const;
  /// In [low, high]; also 1e5, which people write for numbers of steps.
  std::int64_t whole(std::int64_t low, std::int64_t high = kMost) const;
  double real(double low, double high) const;
  std::string text() const;

  /// Passes what is absent.
  void expect_object() const;
  [[noreturn]] void refuse(const std::string& why) const;
  [[noreturn]] void refuse_value(const std::string& wanted) const;

 private:
  const std::string* file_;
  const nlohmann::json* value_;
  std::string path_;
};

}  // namespace strata
