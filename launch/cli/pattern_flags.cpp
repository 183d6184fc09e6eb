#include "launch/cli/pattern_flags.h"

#include <vector>

#include <CLI/CLI.hpp>

namespace strata::cli {

void add_pattern_flags(CLI::App& app, ParameterPatterns& patterns) {
  app.add_option("--freeze", patterns.freeze,
                 "parameters that stay as they are, by their Hugging Face names; * is anything")
      ->type_name("PATTERN...");
  app.add_option("--train", patterns.train, "the only parameters that are trained, likewise")
      ->type_name("PATTERN...");
}

std::string pattern_flags(const ParameterPatterns& patterns) {
  std::string text;
  const auto add = [&text](const char* flag, const std::vector<std::string>& given) {
    if (given.empty()) return;
    text += std::string(" ") + flag;
    for (const std::string& pattern : given) text += " '" + pattern + "'";
  };
  add("--freeze", patterns.freeze);
  add("--train", patterns.train);
  return text;
}

}  // namespace strata::cli
