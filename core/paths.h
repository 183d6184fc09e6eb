#pragma once

#include <filesystem>

namespace strata {

/// `path` or the nearest directory above it that exists: where a path that is to be made would lie.
/// What cannot be looked at counts as not there.
std::filesystem::path nearest_existing(const std::filesystem::path& path);

}  // namespace strata
