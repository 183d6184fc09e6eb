#include "checkpoint/parameter_patterns.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <limits>
#include <set>
#include <string_view>

#include "checkpoint/name_map.h"
#include "core/error.h"
#include "core/nearest_name.h"

namespace strata {
namespace {

/// A parameter under every name that a pattern may mean.
struct NamedParameter {
  std::string name;
  std::vector<std::string> hf_names;
};

std::vector<NamedParameter> named_parameters(const ModelConfig& config) {
  std::vector<NamedParameter> result;
  for (const MappedParameter& mapped : name_map(config)) {
    NamedParameter parameter{mapped.name, {mapped.source.hf_name}};
    const std::size_t dot = mapped.source.hf_name.find('.');
    if (mapped.source.hf_name.find('.', dot + 1) != std::string::npos) {
      parameter.hf_names.push_back(mapped.source.hf_name.substr(dot + 1));
    }
    const bool tied_table = config.tied && result.empty();  // the token table comes first
    if (tied_table) parameter.hf_names.emplace_back("lm_head.weight");
    result.push_back(std::move(parameter));
  }
  return result;
}

bool matches(const std::string& pattern, const NamedParameter& parameter) {
  return std::ranges::any_of(parameter.hf_names, [&](const std::string& name) {
    return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
  });
}
bool matches_any(const std::vector<std::string>& patterns, const NamedParameter& parameter) {
  return std::ranges::any_of(
      patterns, [&](const std::string& pattern) { return matches(pattern, parameter); });
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (std::string_view("._*?[]").find(c) == std::string_view::npos) {
      words.back() += c;
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

/// How far the words of a pattern are from those of a name, each from its nearest.
int distance(const std::vector<std::string>& wanted, const std::vector<std::string>& words) {
  int sum = 0;
  for (const std::string& word : wanted) {
    int smallest = std::numeric_limits<int>::max();
    for (const std::string& other : words)
      smallest = std::min(smallest, edit_distance(word, other));
    sum += smallest;
  }
  return sum;
}

[[noreturn]] void refuse(const char* flag, const std::string& pattern,
                         const std::vector<NamedParameter>& parameters) {
  constexpr std::size_t kShown = 3;
  const std::vector<std::string> wanted = words_of(pattern);
  std::vector<std::pair<int, std::string>> near;
  std::set<std::string> seen;
  for (const NamedParameter& parameter : parameters) {
    const bool repeats =
        parameter.name.starts_with("layers.") && !parameter.name.starts_with("layers.0.");
    const std::string& name = parameter.hf_names.front();
    if (repeats || !seen.insert(name).second) continue;  // layers have equal names
    near.emplace_back(distance(wanted, words_of(name)), name);
  }
  std::ranges::stable_sort(near, {}, &std::pair<int, std::string>::first);
  near.resize(std::min(near.size(), kShown));
  std::vector<std::string> names;
  for (const auto& [far, name] : near) names.push_back(name);
  throw UsageError(fmt::format("{}: {} matches no parameter of the model; names near it are {}",
                               flag, pattern, fmt::join(names, ", ")));
}

void check(const char* flag, const std::vector<std::string>& patterns,
           const std::vector<NamedParameter>& parameters) {
  for (const std::string& pattern : patterns) {
    const auto match = [&](const NamedParameter& parameter) { return matches(pattern, parameter); };
    if (std::ranges::none_of(parameters, match)) refuse(flag, pattern, parameters);
  }
}

}  // namespace

std::vector<std::string> frozen_parameters(const ModelConfig& config,
                                           const ParameterPatterns& patterns) {
  if (patterns.empty()) return {};
  const std::vector<NamedParameter> parameters = named_parameters(config);
  check("--freeze", patterns.freeze, parameters);
  check("--train", patterns.train, parameters);
  std::vector<std::string> frozen;
  for (const NamedParameter& parameter : parameters) {
    const bool left_out = !patterns.train.empty() && !matches_any(patterns.train, parameter);
    if (left_out || matches_any(patterns.freeze, parameter)) frozen.push_back(parameter.name);
  }
  if (frozen.size() == parameters.size()) {
    throw UsageError(fmt::format(
        "--freeze, --train: all {} parameters of the model are frozen, so nothing is left to "
        "train; narrow --freeze {}{}",
        frozen.size(), fmt::join(patterns.freeze, " "),
        patterns.train.empty() ? "" : ", or widen --train"));
  }
  return frozen;
}

}  // namespace strata
