#pragma once

// Internal: what --json prints.

#include <nlohmann/json.hpp>

namespace strata::cli {

/// Prints one object on standard output. Strings that are not UTF-8, such as some paths, get U+FFFD
/// for what is none.
void print_json(const nlohmann::ordered_json& object);

}  // namespace strata::cli
