#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace strata::cli {

/// What the chosen command does once all flags were read and checked. Its result is the exit code.
using Action = std::function<int()>;

/// The arguments with every long flag spelled as its command declares it: `-` and `_` are alike in
/// flags, so --max-steps becomes --max_steps. Values and everything after "--" stay as they are.
/// @throws UsageError for a command or a long flag that does not exist, with the nearest name
std::vector<std::string> spell_flags(const CLI::App& app,
                                     const std::vector<std::string>& arguments);

/// The whole program: reads the arguments (without the program's name), runs one command, and turns
/// failure into one line on standard error that begins with "strata:". Returns the exit code: 0, 2
/// for what the user can change in the arguments, 1 for everything else.
int run_command_line(const std::vector<std::string>& arguments);

/// One function per command, each in the file of its name.
void add_bench(CLI::App& app, Action& chosen);
void add_chat(CLI::App& app, Action& chosen);
void add_clean(CLI::App& app, Action& chosen);
void add_doctor(CLI::App& app, Action& chosen);
void add_eval(CLI::App& app, Action& chosen);
void add_generate(CLI::App& app, Action& chosen);
void add_init(CLI::App& app, Action& chosen);
void add_inspect(CLI::App& app, Action& chosen);
void add_plan(CLI::App& app, Action& chosen);
void add_plot(CLI::App& app, Action& chosen);
void add_score(CLI::App& app, Action& chosen);
void add_tokenize(CLI::App& app, Action& chosen);
void add_train(CLI::App& app, Action& chosen);

}  // namespace strata::cli
