#include "launch/cli/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <map>
#include <string_view>
#include <thread>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/nearest_name.h"
#include "launch/core_binding.h"

namespace strata::cli {
namespace {

/// "--max-steps" and "--max_steps" have the same key.
std::string key_of(std::string name) {
  std::replace(name.begin() + 2, name.end(), '_', '-');
  return name;
}

/// Key to declared spelling of every long flag of one command.
std::map<std::string, std::string> long_flags(const CLI::App& command) {
  std::map<std::string, std::string> flags;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) flags[key_of("--" + name)] = "--" + name;
  }
  return flags;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

/// "; did you mean --data? See ..." or "; see ...".
std::string advice(const std::string& nearest, const std::string& see) {
  if (nearest.empty()) return fmt::format("; see {}", see);
  return fmt::format("; did you mean {}? See {}", nearest, see);
}

const CLI::App& find_command(const CLI::App& app, const std::string& name) {
  const auto names = command_names(app);
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    throw UsageError(fmt::format("there is no command {}{}", name,
                                 advice(nearest_name(name, names), "strata --help")));
  }
  return *app.get_subcommand(name);
}

std::string spell_flag(const std::string& argument, const CLI::App& command) {
  const std::size_t end = argument.find('=');
  const std::string name = argument.substr(0, end);
  const auto flags = long_flags(command);
  const auto found = flags.find(key_of(name));
  if (found == flags.end()) {
    std::vector<std::string> names;
    for (const auto& [key, spelling] : flags) names.push_back(spelling);
    const std::string see = command.get_parent() == nullptr
                                ? "strata --help"
                                : fmt::format("strata {} --help", command.get_name());
    throw UsageError(
        fmt::format("unknown flag {}{}", name, advice(nearest_name(name, names), see)));
  }
  return end == std::string::npos ? found->second : found->second + argument.substr(end);
}

void add_commands(CLI::App& app, Action& chosen) {
  app.name("strata");
  app.require_subcommand(1);
  app.set_version_flag("--version", "strata " STRATA_VERSION);
  add_init(app, chosen);
  add_train(app, chosen);
  add_chat(app, chosen);
  add_eval(app, chosen);
  add_generate(app, chosen);
  add_doctor(app, chosen);
  add_inspect(app, chosen);
  add_plan(app, chosen);
  add_plot(app, chosen);
  add_score(app, chosen);
  add_tokenize(app, chosen);
  add_clean(app, chosen);
  add_bench(app, chosen);
}

/// All ranks of a job meet the same mistake at the same moment. The first one says it; its end
/// makes the launcher end the others, who speak only if they are still there after a while.
void let_first_rank_speak() {
  if (launched_rank().value_or(0) != 0) std::this_thread::sleep_for(std::chrono::seconds(5));
}

int print_error(const char* message, int exit_code) {
  let_first_rank_speak();
  fmt::print(stderr, "strata: {}\n", message);
  return exit_code;
}

int parse_and_run(CLI::App& app, const std::vector<std::string>& arguments, const Action& chosen) {
  try {
    auto spelled = spell_flags(app, arguments);
    std::reverse(spelled.begin(), spelled.end());  // CLI11 takes them from the back
    app.parse(spelled);
  } catch (const CLI::Success& help_or_version) {
    return app.exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    return print_error(error.what(), 2);
  }
  return chosen();
}

}  // namespace

std::vector<std::string> spell_flags(const CLI::App& app,
                                     const std::vector<std::string>& arguments) {
  std::vector<std::string> spelled;
  const CLI::App* command = &app;
  bool flags_ended = false;
  for (const std::string& argument : arguments) {
    flags_ended = flags_ended || argument == "--";
    if (!flags_ended && argument.starts_with("--")) {
      spelled.push_back(spell_flag(argument, *command));
      continue;
    }
    spelled.push_back(argument);
    const bool is_command = command == &app && !flags_ended && !argument.starts_with("-");
    if (is_command) command = &find_command(app, argument);
  }
  return spelled;
}

int run_command_line(const std::vector<std::string>& arguments) {
  try {
    CLI::App app("Trains and runs language models larger than memory");
    Action chosen;
    add_commands(app, chosen);
    if (arguments.empty()) {
      throw UsageError(fmt::format("no command was given; use one of {}, or strata --help",
                                   fmt::join(command_names(app), ", ")));
    }
    return parse_and_run(app, arguments, chosen);
  } catch (const UsageError& error) {
    return print_error(error.what(), 2);
  } catch (const std::exception& error) {
    return print_error(error.what(), 1);
  }
}

}  // namespace strata::cli
