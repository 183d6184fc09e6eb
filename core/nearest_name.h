#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace strata {

/// Inserted, removed, changed or swapped neighbouring characters between two names.
int edit_distance(std::string_view left, std::string_view right);

/// The name closest to `wanted`, for "did you mean": the first of the closest ones, whatever their
/// case. Empty when all of them need more than one change, and more than one for every three
/// characters of `wanted`.
std::string nearest_name(std::string_view wanted, const std::vector<std::string>& names);

}  // namespace strata
