#include "launch/cli/flags.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/model/config.h"
#include "core/nearest_name.h"
#include "core/paths.h"
#include "core/units.h"

namespace strata::cli {
namespace {

namespace fs = std::filesystem;

/// The first name of "--model,-m", for messages.
std::string shown(const std::string& name) { return name.substr(0, name.find(',')); }

CLI::Option* add_text(CLI::App& app, const std::string& name, const std::string& type,
                      const std::string& initial, std::function<void(const std::string&)> keep,
                      const std::string& help) {
  CLI::Option* option = app.add_option_function<std::string>(name, std::move(keep), help);
  option->type_name(type);
  if (!initial.empty()) option->default_str(initial);
  return option;
}

template <typename Number>
Number parse_number(const std::string& flag, const std::string& text, Number low, Number high,
                    const char* kind) {
  Number value{};
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end || !(value >= low && value <= high)) {
    const bool bounded = high < std::numeric_limits<Number>::max();
    throw UsageError(
        bounded ? fmt::format("{}: \"{}\" is not a {} from {} to {}", flag, text, kind, low, high)
                : fmt::format("{}: \"{}\" is not a {} of at least {}", flag, text, kind, low));
  }
  return value;
}

void keep_path(const std::string& flag, const std::string& text, fs::path& target) {
  if (text.empty()) throw UsageError(fmt::format("{}: the path is empty", flag));
  target = text;
}

}  // namespace

CLI::Option* add_size(CLI::App& app, const std::string& name, std::optional<std::uint64_t>& target,
                      const std::string& help) {
  const std::string flag = shown(name);
  return add_text(
      app, name, "SIZE", "",
      [flag, &target](const std::string& text) { target = parse_bytes(flag, text); }, help);
}

CLI::Option* add_size(CLI::App& app, const std::string& name, std::uint64_t& target,
                      const std::string& help) {
  const std::string flag = shown(name);
  return add_text(
      app, name, "SIZE", format_bytes(target),
      [flag, &target](const std::string& text) { target = parse_bytes(flag, text); }, help);
}

CLI::Option* add_whole(CLI::App& app, const std::string& name, std::int64_t& target,
                       std::int64_t low, std::int64_t high, const std::string& help) {
  const std::string flag = shown(name);
  return add_text(
      app, name, "N", std::to_string(target),
      [=, &target](const std::string& text) {
        target = parse_number(flag, text, low, high, "whole number");
      },
      help);
}

CLI::Option* add_whole(CLI::App& app, const std::string& name, std::optional<std::int64_t>& target,
                       std::int64_t low, std::int64_t high, const std::string& help) {
  const std::string flag = shown(name);
  return add_text(
      app, name, "auto|N", target ? std::to_string(*target) : "auto",
      [=, &target](const std::string& text) {
        target.reset();
        if (text != "auto") {
          target = parse_number(flag, text, low, high, "whole number, nor auto,");
        }
      },
      help);
}

CLI::Option* add_real(CLI::App& app, const std::string& name, double& target, double low,
                      double high, const std::string& help) {
  const std::string flag = shown(name);
  return add_text(
      app, name, "X", fmt::format("{}", target),
      [=, &target](const std::string& text) {
        target = parse_number(flag, text, low, high, "number");
      },
      help);
}

CLI::Option* add_path(CLI::App& app, const std::string& name, fs::path& target,
                      const std::string& type, const std::string& help) {
  const std::string flag = shown(name);
  return add_text(
      app, name, type, target.string(),
      [flag, &target](const std::string& text) { keep_path(flag, text, target); }, help);
}

CLI::Option* add_paths(CLI::App& app, const std::string& name, std::vector<fs::path>& target,
                       const std::string& type, const std::string& help) {
  const std::string flag = shown(name);
  const auto keep = [flag, &target](const std::vector<std::string>& texts) {
    target.resize(texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) keep_path(flag, texts[i], target[i]);
  };
  return app.add_option_function<std::vector<std::string>>(name, keep, help)->type_name(type);
}

CLI::Option* add_path_list(CLI::App& app, const std::string& name, std::vector<fs::path>& target,
                           const std::string& type, const std::string& help) {
  return add_paths(app, name, target, type, help)->delimiter(',')->allow_extra_args(false);
}

CLI::Option* add_switch(CLI::App& app, const std::string& name, bool& target,
                        const std::string& help) {
  return app.add_flag(name, target, help);
}

CLI::Option* add_name(CLI::App& app, const std::string& name, const std::vector<std::string>& names,
                      const std::string& initial, std::function<void(std::size_t)> keep,
                      const std::string& help) {
  const std::string flag = shown(name);
  const auto parse = [flag, names, keep = std::move(keep)](const std::string& text) {
    const auto found = std::find(names.begin(), names.end(), text);
    if (found == names.end()) {
      const std::string nearest = nearest_name(text, names);
      const std::string hint = nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest);
      throw UsageError(
          fmt::format("{}: \"{}\" is not one of {}{}", flag, text, fmt::join(names, ", "), hint));
    }
    keep(static_cast<std::size_t>(found - names.begin()));
  };
  return add_text(app, name, fmt::format("{}", fmt::join(names, "|")), initial, parse, help);
}

CLI::Option* add_preset(CLI::App& app, std::string& target, const std::string& help) {
  std::vector<std::pair<std::string, std::string>> presets;
  for (const std::string& name : preset_names()) presets.emplace_back(name, name);
  return add_choice<std::string>(app, "--preset", target, presets, help);
}

CLI::Option* add_compute(CLI::App& app, Dtype& target, const std::string& help) {
  return add_choice<Dtype>(app, "--compute", target,
                           {{"bf16", Dtype::kBf16}, {"fp32", Dtype::kF32}, {"fp16", Dtype::kF16}},
                           help);
}

CLI::Option* add_dropout(CLI::App& app, DropoutChoice& target) {
  const auto keep = [&target](const std::string& text) {
    target = {.from_config = text == "from-config"};
    if (target.from_config) return;
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, target.rate);
    if (error != std::errc() || rest != end || !(target.rate >= 0.0) ||
        static_cast<float>(target.rate) >= 1.0f) {
      throw UsageError(fmt::format(
          "--dropout: \"{}\" is neither from-config nor a number from 0 to below 1", text));
    }
  };
  return add_text(app, "--dropout", "from-config|X", "0", keep,
                  "0: none, whatever config.json says; from-config: as it says; a rate: this, "
                  "where GPT-2 and OPT have resid_pdrop, embd_pdrop and dropout, with the "
                  "config's own rate for attention probabilities");
}

CLI::Option* add_io_engine(CLI::App& app, IoEngineOptions::Kind& target, const std::string& help) {
  using Kind = IoEngineOptions::Kind;
  return add_choice<Kind>(
      app, "--io-engine", target,
      {{"auto", Kind::kAuto}, {"uring", Kind::kUring}, {"threads", Kind::kThreads}}, help);
}

std::vector<std::pair<std::string, std::string>> settings_of(const CLI::App& command) {
  std::vector<std::pair<std::string, std::string>> settings;
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_lnames().empty() || option == command.get_help_ptr()) continue;
    const bool is_switch = option->get_expected_max() == 0;
    const std::string initial = is_switch ? "false" : option->get_default_str();
    settings.emplace_back(
        "--" + option->get_lnames().front(),
        option->count() > 0 ? fmt::format("{}", fmt::join(option->results(), " ")) : initial);
  }
  return settings;
}

void check_directory(const std::string& flag, const fs::path& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw UsageError(
        fmt::format("{}: {} does not exist; name a directory that does", flag, path.string()));
  }
  if (!fs::is_directory(status)) {
    throw UsageError(fmt::format("{}: {} is not a directory", flag, path.string()));
  }
}

void check_files(const std::string& flag, const std::vector<fs::path>& paths) {
  for (const fs::path& path : paths) {
    std::error_code error;
    if (!fs::exists(path, error)) {
      throw UsageError(fmt::format("{}: {} does not exist", flag, path.string()));
    }
    if (fs::is_directory(path, error)) {
      throw UsageError(
          fmt::format("{}: {} is a directory; name the files in it", flag, path.string()));
    }
    if (access(path.c_str(), R_OK) != 0) {
      throw UsageError(
          fmt::format("{}: {} cannot be read; check its permissions", flag, path.string()));
    }
  }
}

void check_output(const std::string& flag, const fs::path& path, bool overwrite) {
  std::error_code error;
  const fs::path existing = nearest_existing(path);
  if (!fs::is_directory(existing, error)) {
    throw UsageError(
        fmt::format("{}: {} is not a directory; choose another", flag, existing.string()));
  }
  if (access(existing.c_str(), W_OK | X_OK) != 0) {
    throw UsageError(
        fmt::format("{}: {} is not writable; choose another directory", flag, existing.string()));
  }
  if (!overwrite && fs::exists(path, error) && !fs::is_empty(path, error)) {
    throw UsageError(fmt::format("{}: {} is not empty; choose another directory or add --overwrite",
                                 flag, path.string()));
  }
}

}  // namespace strata::cli
