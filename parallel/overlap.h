#pragma once

// Internal to trainer and generator. Not installed.

#include <algorithm>
#include <cstdint>

#include "parallel/partition.h"

namespace strata {

/// What a stretch of a part's flat elements and a range of them have in common.
struct Overlap {
  std::int64_t in_stretch = 0;  ///< elements into the stretch
  std::int64_t in_range = 0;    ///< elements into the range
  std::int64_t numel = 0;
};

/// Of elements [begin, begin + stretch) and [first, last).
inline Overlap overlap(std::int64_t begin, std::int64_t stretch, std::int64_t first,
                       std::int64_t last) {
  const std::int64_t from = std::max(begin, first);
  const std::int64_t to = std::min(begin + stretch, last);
  return {from - begin, from - first, std::max<std::int64_t>(0, to - from)};
}

/// The same of a stretch and what a parameter takes up.
inline Overlap overlap(std::int64_t begin, std::int64_t stretch, const Placement& placement) {
  return overlap(begin, stretch, placement.offset, placement.offset + placement.numel);
}

}  // namespace strata
