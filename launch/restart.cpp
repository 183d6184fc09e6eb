#include "launch/restart.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace strata {
namespace {

constexpr const char* kGuard = "STRATA_RESTARTED";

// As the kernel got them: argv of main() may have been changed, or belong to an interpreter.
std::vector<std::string> command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> arguments;
  for (std::string argument; std::getline(file, argument, '\0');) arguments.push_back(argument);
  return arguments;
}

}  // namespace

std::string restart_with(const std::vector<std::pair<std::string, std::string>>& variables,
                         const std::string& note) {
  if (const char* earlier = std::getenv(kGuard)) {
    const std::string kept = earlier;
    unsetenv(kGuard);  // not for the programs this one may start
    return kept;
  }
  bool complete = true;
  for (const auto& [name, value] : variables) {
    complete = complete && std::getenv(name.c_str()) != nullptr;
  }
  std::vector<std::string> arguments = command_line();
  if (complete || arguments.empty()) return note;
  for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 0);
  setenv(kGuard, note.c_str(), 1);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execv("/proc/self/exe", argv.data());
  unsetenv(kGuard);  // could not: go on as we are, only slower
  return note;
}

}  // namespace strata
