#include "core/nearest_name.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace strata {
namespace {

std::string in_lower_case(std::string_view text) {
  std::string low(text);
  std::ranges::transform(low, low.begin(), [](unsigned char c) { return std::tolower(c); });
  return low;
}

}  // namespace

int edit_distance(std::string_view left, std::string_view right) {
  // Rows of the table of prefixes: before the previous one, previous, current.
  std::vector<int> before(right.size() + 1);
  std::vector<int> previous(right.size() + 1);
  std::vector<int> current(right.size() + 1);
  for (std::size_t j = 0; j <= right.size(); ++j) previous[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= left.size(); ++i) {
    current[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= right.size(); ++j) {
      const int change = previous[j - 1] + (left[i - 1] == right[j - 1] ? 0 : 1);
      current[j] = std::min({change, previous[j] + 1, current[j - 1] + 1});
      const bool swapped =
          i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
      if (swapped) current[j] = std::min(current[j], before[j - 2] + 1);
    }
    std::swap(before, previous);
    std::swap(previous, current);
  }
  return previous[right.size()];
}

std::string nearest_name(std::string_view wanted, const std::vector<std::string>& names) {
  if (wanted.size() < 2) return {};  // one change makes it any other
  const std::string low = in_lower_case(wanted);
  int smallest = std::max(1, static_cast<int>(wanted.size()) / 3);
  std::string nearest;
  for (const std::string& name : names) {
    const int distance = edit_distance(low, in_lower_case(name));
    if (distance < smallest || (distance == smallest && nearest.empty())) {
      smallest = distance;
      nearest = name;
    }
  }
  return nearest;
}

}  // namespace strata
