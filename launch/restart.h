#pragma once

#include <string>
#include <utility>
#include <vector>

namespace strata {

/// Starts the program over in this process (same id, arguments and cores) with those of `variables`
/// that the environment does not have yet; does not return when it does. For libraries that read
/// the environment when they are loaded. Does nothing when nothing is missing or it was done
/// before. Returns the `note` given before the restart, or this one when there was none.
std::string restart_with(const std::vector<std::pair<std::string, std::string>>& variables,
                         const std::string& note);

}  // namespace strata
