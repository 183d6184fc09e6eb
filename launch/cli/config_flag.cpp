#include "launch/cli/config_flag.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/json_file.h"
#include "core/nearest_name.h"
#include "core/units.h"
#include "launch/cli/flags.h"
#include "launch/cli/train_options.h"

namespace strata::cli {
namespace {

constexpr std::size_t kMostBytes = 1 << 20;

/// "--max-steps" and "--max_steps" are one flag.
std::string key_of(std::string name) {
  std::ranges::replace(name, '-', '_');
  return name;
}

CLI::Option* find_flag(CLI::App& app, const std::string& flag) {
  for (CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      if (key_of("--" + name) == key_of(flag)) return option;
    }
  }
  return nullptr;
}

std::optional<double> number_of(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end) return std::nullopt;
  return value;
}

std::optional<std::uint64_t> bytes_of(const std::string& text) {
  try {
    return parse_bytes("", text);
  } catch (const UsageError&) {
    return std::nullopt;
  }
}

/// "1e-4" is "0.0001", and "1GiB" is "1024MiB".
bool same_value(const std::string& a, const std::string& b) {
  if (a == b) return true;
  if (const auto number = number_of(a)) return number == number_of(b);
  const auto bytes = bytes_of(a);
  return bytes && bytes == bytes_of(b);
}

std::string joined(const std::vector<std::string>& values) {
  return fmt::format("{}", fmt::join(values, ","));
}

/// Gives the settings of one file to the options of a command.
class Application {
 public:
  Application(CLI::App& app, ConfigChoices& choices) : app_(app), choices_(choices) {
    add_train_flags(train_, unused_);
  }

  /// Without "--".
  std::vector<std::string> flag_names() {
    std::vector<std::string> names;
    for (CLI::App* app : {&app_, &train_}) {
      for (const CLI::Option* option : app->get_options()) {
        for (const std::string& name : option->get_lnames()) names.push_back(name);
      }
    }
    return names;
  }

  void apply(std::vector<ConfigSetting> settings) {
    // Defaults give way to everything, so they come last.
    std::stable_partition(settings.begin(), settings.end(),
                          [](const auto& setting) { return !setting.by_default; });
    choose_derived(settings);
    for (ConfigSetting& setting : settings) {
      if (setting.flag.empty() || apply_one(setting)) {
        choices_.settings.push_back(std::move(setting));
      }
    }
  }

 private:
  /// Also of train, where the command has no such flag: the value is checked, and that is all.
  CLI::Option& option_of(const ConfigSetting& setting) {
    const bool forbidden = setting.flag == "--config" || setting.flag == "--help";
    for (CLI::App* app : {&app_, &train_}) {
      CLI::Option* option = find_flag(*app, setting.flag);
      if (option != nullptr && !forbidden) return *option;
    }
    const std::string nearest = nearest_name(setting.flag.substr(2, 100), flag_names());
    throw UsageError(fmt::format("{}: {}: there is no flag {}{}", choices_.file.string(),
                                 setting.key, setting.flag,
                                 nearest.empty() ? "" : "; did you mean " + nearest + "?"));
  }

  /// @return whether the setting holds: a default may not
  bool apply_one(ConfigSetting& setting) {
    CLI::Option& option = option_of(setting);
    setting.flag = "--" + option.get_lnames().front();
    if (setting.automatic()) {
      setting.values = option.count() > 0 ? option.results() : defaults_of(option);
      return true;
    }
    if (option.count() > 0) {
      if (setting.by_default) return false;
      if (setting.flag != "--place") {
        expect_same(option, setting, option.results());
        return true;
      }
      expect_same_places(option, setting);
    }
    sources_.try_emplace(&option, setting.key);
    try {
      option.add_result(setting.values);
      option.run_callback();
    } catch (const UsageError& error) {
      refuse(setting, error.what());
    } catch (const CLI::ParseError& error) {
      refuse(setting, error.what());
    }
    return true;
  }

  [[noreturn]] void refuse(const ConfigSetting& setting, const std::string& why) const {
    throw UsageError(fmt::format("{}: {}: {}", choices_.file.string(), setting.key, why));
  }

  static std::vector<std::string> defaults_of(const CLI::Option& option) {
    const std::string text = option.get_default_str();
    return text.empty() ? std::vector<std::string>() : std::vector{text};
  }

  void expect_same(const CLI::Option& option, const ConfigSetting& setting,
                   const std::vector<std::string>& given) const {
    if (std::ranges::equal(given, setting.values, same_value)) return;
    const auto source = sources_.find(&option);
    if (source != sources_.end()) {
      refuse(setting, fmt::format("{} contradicts {}, which means {} {}; remove one of them",
                                  setting.shown, source->second, setting.flag, joined(given)));
    }
    refuse(setting, fmt::format("{} contradicts {} {} on the command line; remove one of them, or "
                                "write \"auto\" in the file",
                                setting.shown, setting.flag, joined(given)));
  }

  /// Each section of --place is a setting of its own.
  void expect_same_places(const CLI::Option& option, const ConfigSetting& setting) const {
    for (const std::string& value : setting.values) {
      const std::string section = value.substr(0, value.find('=') + 1);
      for (const std::string& given : option.results()) {
        if (given.starts_with(section) && given != value) {
          ConfigSetting one = setting;
          one.values = {value};
          expect_same(option, one, {given});
        }
      }
    }
  }

  /// As DeepSpeed: what neither the file nor a flag says follows from train_batch_size.
  void choose_derived(const std::vector<ConfigSetting>& settings) {
    const auto said = [&](const char* flag, bool automatic_counts) {
      CLI::Option* option = find_flag(app_, flag);
      if (option != nullptr && option->count() > 0) return true;
      return std::ranges::any_of(settings, [&](const ConfigSetting& setting) {
        return key_of(setting.flag) == key_of(flag) && (automatic_counts || !setting.automatic());
      });
    };
    if (!said("--train_batch_size", false)) return;
    choices_.derive_micro_batch = !said("--per_device_train_batch_size", true);
    choices_.derive_accumulation = !said("--gradient_accumulation_steps", true);
  }

  CLI::App& app_;
  ConfigChoices& choices_;
  CLI::App train_;
  TrainOptions unused_;
  std::map<const CLI::Option*, std::string> sources_;  // key in the file that set it first
};

void read_config(const std::string& text, CLI::App& app, ConfigChoices& choices) {
  choices.file = text;
  check_files("--config", {choices.file});
  Application application(app, choices);
  DeepSpeedConfig config = parse_deepspeed_config(read_text_file(choices.file, kMostBytes),
                                                  choices.file.string(), application.flag_names());
  choices.ignored = std::move(config.ignored);
  choices.extras = config.extras;
  application.apply(std::move(config.settings));
}

}  // namespace

bool ConfigChoices::sets(std::string_view flag) const {
  return std::ranges::find(settings, flag, &ConfigSetting::flag) != settings.end();
}

void add_config_flag(CLI::App& app, ConfigChoices& choices) {
  app.add_option_function<std::string>(
         "--config", [&app, &choices](const std::string& text) { read_config(text, app, choices); },
         "settings in DeepSpeed's JSON; \"auto\" takes a flag's value, the section \"strata\" has "
         "flags of this program")
      ->type_name("FILE.json");
}

void settle_batch(ConfigChoices& choices, BatchSizes& batch, int ranks) {
  if (choices.derive_micro_batch) batch.micro = 0;
  if (choices.derive_accumulation) batch.accumulation = 0;
  batch = derive_batch(batch, ranks);
  const auto derived = [&choices](const char* key, const char* flag, std::int64_t value) {
    choices.settings.push_back({key, "derived", flag, {std::to_string(value)}});
  };
  if (choices.derive_micro_batch) {
    derived("train_micro_batch_size_per_gpu", "--per_device_train_batch_size", batch.micro);
  }
  if (choices.derive_accumulation) {
    derived("gradient_accumulation_steps", "--gradient_accumulation_steps", batch.accumulation);
  }
  choices.derive_micro_batch = choices.derive_accumulation = false;
  for (ConfigSetting& setting : choices.settings) {  // "auto" was 0, which means the product
    if (setting.flag == "--train_batch_size") setting.values = {std::to_string(batch.train)};
  }
}

void apply_extras(const ConfigChoices& choices, TrainerOptions& trainer) {
  const ConfigExtras& extras = choices.extras;
  trainer.decay_everywhere = extras.decay_everywhere;
  Schedule& schedule = trainer.schedule;
  schedule.warmup_shape = extras.warmup_shape;
  schedule.warmup_start = extras.warmup_start + extras.warmup_start_ratio * schedule.learning_rate;
  schedule.cosine_end = extras.cosine_end;
  if (extras.schedule_steps > 0) schedule.total_steps = extras.schedule_steps;
  if (extras.io_block_bytes) trainer.io.block_bytes = *extras.io_block_bytes;
  if (extras.io_queue_depth) trainer.io.queue_depth = *extras.io_queue_depth;
}

std::string format_config(const ConfigChoices& choices) {
  if (choices.file.empty()) return {};
  std::string text = fmt::format("{} as understood:\n", choices.file.string());
  for (const ConfigSetting& setting : choices.settings) {
    const std::string value =
        setting.by_default ? fmt::format("{} (default)", setting.shown) : setting.shown;
    const std::string meaning = setting.flag.empty() ? "as in DeepSpeed"
                                : setting.values.empty()
                                    ? setting.flag
                                    : setting.flag + " " + joined(setting.values);
    text += fmt::format("  {:<44} {:<16} {}\n", setting.key, value, meaning);
  }
  if (choices.extras.decay_everywhere) {
    text +=
        "  weight decay on every parameter, norms and biases included, as the file has an "
        "optimizer\n";
  }
  return text;
}

std::string ignored_warning(const ConfigChoices& choices) {
  if (choices.ignored.empty()) return {};
  return fmt::format("{}: without effect here: {}", choices.file.string(),
                     fmt::join(choices.ignored, ", "));
}

}  // namespace strata::cli
