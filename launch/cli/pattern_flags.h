#pragma once

#include <string>

#include "checkpoint/parameter_patterns.h"

namespace CLI {
class App;
}

namespace strata::cli {

/// --freeze and --train of `train` and `plan`; `patterns` must outlive the parsing.
void add_pattern_flags(CLI::App& app, ParameterPatterns& patterns);

/// The same as a command line takes them, for a shell: " --freeze 'a*'"; empty: nothing.
std::string pattern_flags(const ParameterPatterns& patterns);

}  // namespace strata::cli
