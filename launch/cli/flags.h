#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/dtype.h"
#include "core/model/dropout.h"
#include "swap/io_engine.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace strata::cli {

// Flags that check their value when it is read and say in one line what they would take instead:
// flag, value, remedy. The target's value at the time of the call is the default that --help shows.
// Targets must outlive the parsing.

CLI::Option* add_size(CLI::App& app, const std::string& name, std::optional<std::uint64_t>& target,
                      const std::string& help);
CLI::Option* add_size(CLI::App& app, const std::string& name, std::uint64_t& target,
                      const std::string& help);
/// A whole number in [low, high].
CLI::Option* add_whole(CLI::App& app, const std::string& name, std::int64_t& target,
                       std::int64_t low, std::int64_t high, const std::string& help);
/// "auto", which is none, or a whole number in [low, high].
CLI::Option* add_whole(CLI::App& app, const std::string& name, std::optional<std::int64_t>& target,
                       std::int64_t low, std::int64_t high, const std::string& help);
/// A finite number in [low, high].
CLI::Option* add_real(CLI::App& app, const std::string& name, double& target, double low,
                      double high, const std::string& help);
CLI::Option* add_path(CLI::App& app, const std::string& name, std::filesystem::path& target,
                      const std::string& type, const std::string& help);
/// "--data A B", also given several times.
CLI::Option* add_paths(CLI::App& app, const std::string& name,
                       std::vector<std::filesystem::path>& target, const std::string& type,
                       const std::string& help);
/// "--swap A,B".
CLI::Option* add_path_list(CLI::App& app, const std::string& name,
                           std::vector<std::filesystem::path>& target, const std::string& type,
                           const std::string& help);
CLI::Option* add_switch(CLI::App& app, const std::string& name, bool& target,
                        const std::string& help);

/// One of `names`; `keep` gets its index. What add_choice is made of.
CLI::Option* add_name(CLI::App& app, const std::string& name, const std::vector<std::string>& names,
                      const std::string& initial, std::function<void(std::size_t)> keep,
                      const std::string& help);

/// One of a few names, each with the value it stands for.
template <typename Value>
CLI::Option* add_choice(CLI::App& app, const std::string& name, Value& target,
                        const std::vector<std::pair<std::string, Value>>& choices,
                        const std::string& help) {
  std::vector<std::string> names;
  std::string initial;
  for (const auto& [choice, value] : choices) {
    names.push_back(choice);
    if (value == target) initial = choice;
  }
  return add_name(
      app, name, names, initial,
      [&target, choices](std::size_t index) { target = choices[index].second; }, help);
}

/// Every flag of a parsed command with its value: as it was given, by a configuration too, else the
/// default, which may be empty.
std::vector<std::pair<std::string, std::string>> settings_of(const CLI::App& command);

// Flags that several commands have.

/// --preset: a shape by its name.
CLI::Option* add_preset(CLI::App& app, std::string& target, const std::string& help);
/// --compute bf16|fp32|fp16.
CLI::Option* add_compute(CLI::App& app, Dtype& target, const std::string& help);
/// --dropout from-config|X.
CLI::Option* add_dropout(CLI::App& app, DropoutChoice& target);
/// --io-engine auto|uring|threads.
CLI::Option* add_io_engine(CLI::App& app, IoEngineOptions::Kind& target, const std::string& help);

// Checks of what flags name, before any work is done. All throw UsageError.

void check_directory(const std::string& flag, const std::filesystem::path& path);
void check_files(const std::string& flag, const std::vector<std::filesystem::path>& paths);
/// A directory that can be made or is empty; with `overwrite` it may hold files.
void check_output(const std::string& flag, const std::filesystem::path& path, bool overwrite);

}  // namespace strata::cli
